{{/* Names, labels and images. */}}

{{- define "roost.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters leave room for what is appended, the longest being "-control-headless". */}}
{{- define "roost.fullname" -}}
{{- $name := include "roost.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects pods: never to be changed, since Deployments refuse it. Takes root and component. */}}
{{- define "roost.selector" -}}
app.kubernetes.io/name: {{ include "roost.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "roost.labels" -}}
{{ include "roost.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: roost
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object. Takes root, component, and perhaps suffix, labels and annotations. */}}
{{- define "roost.metadata" -}}
name: {{ include "roost.fullname" .root }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- merge (include "roost.labels" . | fromYaml) (.labels | default dict) | toYaml | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image: a digest wins over a tag. Takes image and defaultTag. */}}
{{- define "roost.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .defaultTag }}
{{- end -}}
{{- end -}}

{{- define "roost.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "roost.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* Whether the chart runs a Redis. Text: empty for no. */}}
{{- define "roost.bundledRedis" -}}
{{- if and .Values.redis.bundled.enabled (not .Values.redis.existingSecret) }}yes{{ end -}}
{{- end -}}

{{- define "roost.redisSecret" -}}
{{ .Values.redis.existingSecret | default (printf "%s-redis" (include "roost.fullname" .)) }}
{{- end -}}
{{- define "roost.tokenKeySecret" -}}
{{ .Values.auth.tokenKey.existingSecret | default (printf "%s-token-key" (include "roost.fullname" .)) }}
{{- end -}}
{{- define "roost.apiKeysSecret" -}}
{{ .Values.auth.apiKeys.existingSecret | default (printf "%s-api-keys" (include "roost.fullname" .)) }}
{{- end -}}

{{/* 256 random bits as base64url without padding: what `roost token key` makes. */}}
{{- define "roost.randomKey" -}}
{{- randBytes 32 | replace "+" "-" | replace "/" "_" | trimAll "=" -}}
{{- end -}}
