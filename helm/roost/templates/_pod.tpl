{{/* What pods have in common. */}}

{{/* Pod Security "restricted", for a pod. */}}
{{- define "roost.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The same for a container. */}}
{{- define "roost.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* One entry of a Secret as a file. Takes name, secret, key and path. */}}
{{- define "roost.secretVolume" -}}
- name: {{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items: [{key: {{ .key | quote }}, path: {{ .path | quote }}}]
{{- end -}}

{{/* The URL of Redis and what belongs to it, as files. */}}
{{- define "roost.redisVolumes" -}}
{{- $redis := .Values.redis -}}
- name: redis
  secret:
    secretName: {{ include "roost.redisSecret" . }}
    defaultMode: 0440
    items:
      - {key: {{ ternary $redis.key "url" (ne $redis.existingSecret "") | quote }}, path: "url"}
      {{- with $redis.sentinel.passwordKey }}
      - {key: {{ . | quote }}, path: "sentinel-password"}
      {{- end }}
{{- with $redis.tls }}
{{- if .existingSecret }}
- name: redis-tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      {{- with .caKey }}
      - {key: {{ . | quote }}, path: "ca.crt"}
      {{- end }}
      {{- with .certKey }}
      - {key: {{ . | quote }}, path: "tls.crt"}
      {{- end }}
      {{- with .keyKey }}
      - {key: {{ . | quote }}, path: "tls.key"}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A certificate and its key as files, which change with the Secret. Takes the role's values. */}}
{{- define "roost.tlsVolume" -}}
{{- with .tls }}
{{- if .existingSecret }}
- name: tls
  secret:
    secretName: {{ .existingSecret }}
    defaultMode: 0440
    items:
      - {key: {{ .certKey | quote }}, path: "tls.crt"}
      - {key: {{ .keyKey | quote }}, path: "tls.key"}
{{- end }}
{{- end }}
{{- end -}}

{{/* The spread constraints, each with the labels to select by. Takes root, role. */}}
{{- define "roost.spread" -}}
{{- $selector := dict "matchLabels" (include "roost.selector" (dict "root" .root "component" .role) | fromYaml) -}}
{{- range (index .root.Values .role).topologySpreadConstraints }}
- {{ merge (deepCopy .) (dict "labelSelector" $selector "matchLabelKeys" (list "pod-template-hash")) | toYaml | nindent 2 | trim }}
{{- end }}
{{- end -}}

{{/* A node's pod. Takes root, role. */}}
{{- define "roost.pod" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
{{- $edge := eq .role "edge" -}}
{{- $tls := ne $values.tls.existingSecret "" -}}
{{- $plain := or (not $edge) (not $tls) $values.tls.plain -}}
metadata:
  # No chart version among them: a change of the chart alone must not send devices away.
  labels:
    {{- merge (include "roost.selector" (dict "root" $root "component" .role) | fromYaml) $values.podLabels $root.Values.commonLabels | toYaml | nindent 4 }}
  annotations:
    # New pods for a new configuration: a node reads it once.
    checksum/config: {{ include "roost.toml" . | sha256sum }}
    {{- with merge (dict) $values.podAnnotations $root.Values.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "roost.serviceAccountName" $root }}
  automountServiceAccountToken: false
  # Services of other names would else show up as ROOST_… variables.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "roost.gracePeriod" . }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  securityContext:
    {{- include "roost.podSecurity" $root | nindent 4 }}
    {{- with $values.sysctls }}
    sysctls:
      {{- toYaml . | nindent 6 }}
    {{- end }}
  {{- with include "roost.spread" . }}
  topologySpreadConstraints:
    {{- . | trim | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: roost
      image: {{ include "roost.image" (dict "image" $root.Values.image "defaultTag" $root.Chart.AppVersion) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [serve, --config, /etc/roost/roost.toml]
      env:
        - name: ROOST_NODE__ID
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        - name: ROOST_NODE__ADDRESS
          value: $(POD_IP):{{ ternary (ternary 7080 7443 $plain) 7050 $edge }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        {{- if $plain }}
        - {name: {{ ternary "devices" "grpc" $edge }}, containerPort: {{ ternary 7080 7050 $edge }}, protocol: TCP}
        {{- end }}
        {{- if and $edge $tls }}
        - {name: devices-tls, containerPort: 7443, protocol: TCP}
        {{- end }}
        - {name: admin, containerPort: 7090, protocol: TCP}
      startupProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml $values.startupProbe | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        {{- toYaml $values.livenessProbe | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        {{- toYaml $values.readinessProbe | nindent 8 }}
      {{- if gt (int64 $values.drain.preStopSeconds) 0 }}
      lifecycle:
        preStop:
          sleep: {seconds: {{ int64 $values.drain.preStopSeconds }}}
      {{- end }}
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- include "roost.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: config, mountPath: /etc/roost/roost.toml, subPath: roost.toml, readOnly: true}
        - {name: redis, mountPath: /etc/roost/redis, readOnly: true}
        {{- if $root.Values.redis.tls.existingSecret }}
        - {name: redis-tls, mountPath: /etc/roost/redis-tls, readOnly: true}
        {{- end }}
        - {name: auth, mountPath: /etc/roost/auth, readOnly: true}
        {{- if $tls }}
        - {name: tls, mountPath: /etc/roost/tls, readOnly: true}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "roost.fullname" $root }}-{{ .role }}
    {{- include "roost.redisVolumes" $root | nindent 4 }}
    {{- if $edge }}
    {{- include "roost.secretVolume" (dict "name" "auth" "secret" (include "roost.tokenKeySecret" $root) "key" $root.Values.auth.tokenKey.key "path" "token.key") | nindent 4 }}
    {{- else }}
    {{- include "roost.secretVolume" (dict "name" "auth" "secret" (include "roost.apiKeysSecret" $root) "key" $root.Values.auth.apiKeys.key "path" "api.key") | nindent 4 }}
    {{- end }}
    {{- with include "roost.tlsVolume" $values | trim }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}
