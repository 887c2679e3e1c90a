{{- define "name" }}{{ .Values.nameOverride | default .Chart.Name }}{{ end }}

{{- define "fullname" -}}
{{ .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) }}
{{- end }}

{{- /* Labels that select: the old pair, nothing of app.kubernetes.io. */}}
{{- define "selector" -}}
app: {{ include "name" . }}
release: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
chart: {{ .Chart.Name }}-{{ .Chart.Version }}
heritage: {{ .Release.Service }}
{{- end }}
