{{/* How long going away takes. The same numbers go to Kubernetes and to the binary, so that they cannot
contradict each other. Each of these takes root and role. */}}

{{/* Over how long devices are sent away, in seconds; 0 where there are none. */}}
{{- define "roost.drainSeconds" -}}
{{- if eq .role "control" -}}
0
{{- else -}}
{{- $drain := .root.Values.edge.drain -}}
{{- if kindIs "invalid" $drain.drainSeconds -}}
{{- $seconds := divf (float64 .root.Values.config.edge.max_connections) (float64 $drain.devicesPerSecond) | ceil | int64 -}}
{{- if gt $seconds 3600 -}}
{{- fail (printf "edge.drain: config.edge.max_connections = %d at devicesPerSecond = %d take %d s to drain, and 3600 s is the most: send more away each second, or hold fewer on one edge" (int64 .root.Values.config.edge.max_connections) (int64 $drain.devicesPerSecond) $seconds) -}}
{{- end -}}
{{ $seconds }}
{{- else -}}
{{ int64 $drain.drainSeconds }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The grace period: what was given, if it is enough, or the sum. */}}
{{- define "roost.gracePeriod" -}}
{{- $values := index .root.Values .role -}}
{{- $drain := $values.drain -}}
{{- $seconds := include "roost.drainSeconds" . | int64 -}}
{{- $sum := add (int64 $drain.preStopSeconds) (int64 $drain.delaySeconds) $seconds (int64 $drain.flushSeconds) (int64 $drain.marginSeconds) -}}
{{- if kindIs "invalid" $values.terminationGracePeriodSeconds -}}
{{ $sum }}
{{- else -}}
{{- $given := int64 $values.terminationGracePeriodSeconds -}}
{{- if lt $given $sum -}}
{{- fail (printf "%s.terminationGracePeriodSeconds = %d is shorter than going away takes: %d s = preStop %d + delay %d + drain %d + flush %d + margin %d. Leave it null for the sum, or shorten a part of %s.drain" .role $given $sum (int64 $drain.preStopSeconds) (int64 $drain.delaySeconds) $seconds (int64 $drain.flushSeconds) (int64 $drain.marginSeconds) .role) -}}
{{- end -}}
{{ $given }}
{{- end -}}
{{- end -}}

{{/* What of the grace period the process has for itself, from SIGTERM on: shutdown.grace. */}}
{{- define "roost.processGrace" -}}
{{- $drain := (index .root.Values .role).drain -}}
{{ sub (include "roost.gracePeriod" . | int64) (add (int64 $drain.preStopSeconds) (int64 $drain.marginSeconds)) }}
{{- end -}}
