{{/* What single values cannot be checked for by the schema: what must fit together. */}}
{{- define "roost.checks" -}}
{{- $values := .Values -}}
{{- if and (not $values.redis.existingSecret) (not $values.redis.bundled.enabled) -}}
{{- fail "redis: nodes meet in Redis. Give redis.existingSecret (a Secret whose entry `url` is redis://HOST:6379), or for trying out redis.bundled.enabled=true" -}}
{{- end -}}
{{- with $values.redis -}}
{{- if and .tls.existingSecret (not (or .tls.caKey .tls.certKey)) -}}
{{- fail "redis.tls: existingSecret is given and neither caKey nor certKey: there is nothing to take from it" -}}
{{- end -}}
{{- if ne (empty .tls.certKey) (empty .tls.keyKey) -}}
{{- fail "redis.tls: certKey and keyKey belong together; give both or neither" -}}
{{- end -}}
{{- if and .sentinel.passwordKey (not .existingSecret) -}}
{{- fail "redis.sentinel.passwordKey: it is an entry of redis.existingSecret, which is not given" -}}
{{- end -}}
{{- if and (ne .durability "memory") (not .existingSecret) -}}
{{- fail (printf "redis.durability: %s needs a Redis with replicas or an append-only file; the bundled one has neither" .durability) -}}
{{- end -}}
{{- end -}}
{{- if $values.production -}}
{{- if not $values.redis.existingSecret -}}
{{- fail "production: give redis.existingSecret; the bundled Redis keeps nothing over a restart" -}}
{{- end -}}
{{- if not $values.auth.tokenKey.existingSecret -}}
{{- fail "production: give auth.tokenKey.existingSecret, made of `roost token key`" -}}
{{- end -}}
{{- if not $values.auth.apiKeys.existingSecret -}}
{{- fail "production: give auth.apiKeys.existingSecret, made of `roost token api-key`" -}}
{{- end -}}
{{- end -}}
{{- range $role := list "edge" "control" -}}
{{- $own := index $values $role -}}
{{- with $own.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) (not (kindIs "invalid" .maxUnavailable)) -}}
{{- fail (printf "%s.podDisruptionBudget: Kubernetes takes one of minAvailable and maxUnavailable, not both" $role) -}}
{{- end -}}
{{- end -}}
{{- with $own.autoscaling -}}
{{- if and .enabled (gt (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- fail (printf "%s.autoscaling: minReplicas = %d is more than maxReplicas = %d" $role (int64 .minReplicas) (int64 .maxReplicas)) -}}
{{- end -}}
{{- $metrics := list .targetCPUUtilizationPercentage .targetConnectionsPerPod | compact -}}
{{- if eq .provider "keda" }}{{ $metrics = concat $metrics .keda.extraTriggers }}{{ end -}}
{{- if and .enabled (not $metrics) -}}
{{- fail (printf "%s.autoscaling: there is nothing to scale by; give a target" $role) -}}
{{- end -}}
{{- if and .enabled (eq .provider "keda") .targetConnectionsPerPod (not .keda.prometheusAddress) -}}
{{- fail (printf "%s.autoscaling.keda.prometheusAddress: KEDA needs it for targetConnectionsPerPod" $role) -}}
{{- end -}}
{{- end -}}
{{- range $own.extraEnv -}}
{{- if hasPrefix "ROOST_SHUTDOWN__" .name -}}
{{- fail (printf "%s.extraEnv: %s would contradict the grace period; set %s.drain instead" $role .name $role) -}}
{{- end -}}
{{- end -}}
{{- if and $own.route.enabled (not $own.route.parentRefs) (not $values.gateway.enabled) -}}
{{- fail (printf "%s.route.parentRefs: name the Gateway to attach to, or set gateway.enabled" $role) -}}
{{- end -}}
{{- if and (eq $role "edge") $own.tls.existingSecret (not $own.tls.plain) (or $own.route.enabled $own.ingress.enabled) -}}
{{- fail "edge.tls.plain: a route or an Ingress ends TLS and needs the port without it; leave it true, or make neither" -}}
{{- end -}}
{{- if and (eq $role "edge") $own.tls.existingSecret $own.tls.plain (eq (int64 $own.tls.port) (int64 $own.service.port)) -}}
{{- fail (printf "edge.tls.port: %d is service.port already" (int64 $own.tls.port)) -}}
{{- end -}}
{{- if and $own.ingress.enabled (not $own.ingress.hosts) -}}
{{- fail (printf "%s.ingress.hosts: an Ingress needs a host name" $role) -}}
{{- end -}}
{{- end -}}
{{- if and $values.gateway.enabled (or (not $values.gateway.className) (not $values.gateway.tlsSecret)) -}}
{{- fail "gateway: className and tlsSecret are needed" -}}
{{- end -}}
{{- end -}}
