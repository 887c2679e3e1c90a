{{- define "name" }}{{ .Values.nameOverride | default .Chart.Name }}{{ end }}

{{- define "fullname" -}}
{{ .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) }}
{{- end }}

{{- define "selector" -}}
app: {{ include "name" . }}
app.kubernetes.io/name: {{ include "name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* A claim template: (dict name app spec). */}}
{{- define "claim" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  labels: {{- merge (dict "app" .app) .spec.additionalLabels | toYaml | nindent 4 }}
  {{- with .spec.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  storageClassName: {{ .spec.storageClassName }}
  accessModes: {{ toJson .spec.accessModes }}
  resources: {requests: {storage: {{ .spec.size }}}}
{{- end }}
