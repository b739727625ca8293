{{/* roost.toml. Takes root and role. */}}

{{/* A value as TOML. YAML's numbers arrive as floats, which would be printed as 1e+06. */}}
{{- define "roost.toml.value" -}}
{{- if kindIs "string" . }}{{ . | toJson }}{{ else if kindIs "bool" . }}{{ . }}{{ else }}{{ int64 . }}{{ end -}}
{{- end -}}

{{- define "roost.toml" -}}
{{- $values := .root.Values -}}
{{- $seconds := include "roost.drainSeconds" . -}}
{{- $shutdown := dict
  "delay" (printf "%ds" (int64 (index $values .role).drain.delaySeconds))
  "drain" (printf "%ss" $seconds)
  "grace" (printf "%ss" (include "roost.processGrace" .)) -}}
{{- $auth := dict "audience" $values.auth.audience -}}
{{- if eq .role "edge" }}{{ $_ := set $auth "token_key_file" "/etc/roost/auth/token.key" }}{{ end -}}
{{- if eq .role "control" }}{{ $_ := set $auth "api_key_file" "/etc/roost/auth/api.key" }}{{ end -}}
{{- $sections := dict
  "node" (dict "role" .role)
  "edge" (merge (dict "addr" "0.0.0.0:7080") $values.config.edge)
  "grpc" (dict "addr" "0.0.0.0:7050")
  "admin" (dict "addr" "0.0.0.0:7090")
  "redis" (dict "url_file" "/etc/roost/redis/url" "prefix" $values.redis.prefix)
  "auth" $auth
  "store" $values.config.store
  "shutdown" $shutdown
  "log" $values.config.log -}}
{{- range $section, $keys := $sections }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ include "roost.toml.value" $value }}
{{- end }}
{{ end }}
{{- end -}}
