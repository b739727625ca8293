{{/* roost.toml. Takes root and role. */}}

{{/* A value as TOML. YAML's numbers arrive as floats, which would be printed as 1e+06. */}}
{{- define "roost.toml.value" -}}
{{- if kindIs "string" . }}{{ . | toJson }}{{ else if kindIs "bool" . }}{{ . }}
{{- else if eq (float64 .) (float64 (int64 .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* How Redis is reached; what has its default is left to the node. */}}
{{- define "roost.redisSection" -}}
{{- $redis := .Values.redis -}}
{{- $section := dict "url_file" "/etc/roost/redis/url" "prefix" $redis.prefix -}}
{{- if ne $redis.durability "memory" -}}
{{- $_ := set $section "durability" $redis.durability -}}
{{- $_ := set $section "replicas" $redis.replicas -}}
{{- $_ := set $section "wait_timeout" $redis.waitTimeout -}}
{{- end -}}
{{- if $redis.tls.existingSecret -}}
{{- with $redis.tls.caKey }}{{ $_ := set $section "ca_file" "/etc/roost/redis-tls/ca.crt" }}{{ end -}}
{{- with $redis.tls.certKey }}{{ $_ := set $section "cert_file" "/etc/roost/redis-tls/tls.crt" }}{{ end -}}
{{- with $redis.tls.keyKey }}{{ $_ := set $section "key_file" "/etc/roost/redis-tls/tls.key" }}{{ end -}}
{{- end -}}
{{- with $redis.sentinel.user }}{{ $_ := set $section "sentinel_user" . }}{{ end -}}
{{- with $redis.sentinel.passwordKey }}{{ $_ := set $section "sentinel_password_file" "/etc/roost/redis/sentinel-password" }}{{ end -}}
{{- $section | toJson -}}
{{- end -}}

{{/* The edges' part: what is empty is left to the node. */}}
{{- define "roost.edgeSection" -}}
{{- $section := merge (dict "addr" "0.0.0.0:7080") .root.Values.config.edge -}}
{{- if not $section.allowed_origins }}{{ $section = omit $section "allowed_origins" }}{{ end -}}
{{- if eq .role "edge" }}{{ $section = merge $section (include "roost.tlsFiles" .root.Values.edge | fromJson) }}{{ end -}}
{{- if and (eq .role "edge") .root.Values.edge.tls.existingSecret -}}
{{- $section = merge $section (dict "tls_addr" "0.0.0.0:7443" "plain" .root.Values.edge.tls.plain) -}}
{{- end -}}
{{- $section | toJson -}}
{{- end -}}

{{/* Where a role's certificate is, if it has one. Takes the role's values. */}}
{{- define "roost.tlsFiles" -}}
{{- $files := dict -}}
{{- if .tls.existingSecret }}{{ $files = dict "tls_cert_file" "/etc/roost/tls/tls.crt" "tls_key_file" "/etc/roost/tls/tls.key" }}{{ end -}}
{{- $files | toJson -}}
{{- end -}}

{{- define "roost.toml" -}}
{{- $values := .root.Values -}}
{{- $seconds := include "roost.drainSeconds" . -}}
{{- $shutdown := dict
  "delay" (printf "%ds" (int64 (index $values .role).drain.delaySeconds))
  "drain" (printf "%ss" $seconds)
  "grace" (printf "%ss" (include "roost.processGrace" .)) -}}
{{- if eq .role "edge" }}{{ $_ := set $shutdown "shed_rate" (int64 $values.edge.drain.hubDevicesPerSecond) }}{{ end -}}
{{- $auth := dict "audience" $values.auth.audience -}}
{{- if eq .role "edge" }}{{ $_ := set $auth "token_key_file" "/etc/roost/auth/token.key" }}{{ end -}}
{{- if eq .role "control" }}{{ $_ := set $auth "api_key_file" "/etc/roost/auth/api.key" }}{{ end -}}
{{- $grpc := dict "addr" "0.0.0.0:7050" -}}
{{- if eq .role "control" }}{{ $grpc = merge $grpc (include "roost.tlsFiles" $values.control | fromJson) }}{{ end -}}
{{- $sections := dict
  "node" (dict "role" .role)
  "edge" (include "roost.edgeSection" . | fromJson)
  "grpc" $grpc
  "admin" (dict "addr" "0.0.0.0:7090")
  "redis" (include "roost.redisSection" .root | fromJson)
  "auth" $auth
  "store" $values.config.store
  "shutdown" $shutdown
  "log" $values.config.log -}}
{{- if $values.config.tracing.otlp_endpoint }}{{ $_ := set $sections "tracing" $values.config.tracing }}{{ end -}}
{{- range $section, $keys := $sections }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "roost.toml.value" $value }}
{{- end }}
{{- end }}
{{ end }}
{{- end -}}
