{{- define "fullname" }}{{ .Values.fullnameOverride | default .Release.Name }}{{ end }}

{{- /* Questions are answered with "true" or nothing. */}}
{{- define "enterprise" }}{{ if eq (lower .Values.neo4j.edition) "enterprise" }}true{{ end }}{{ end }}

{{- /* From three expected members on, the chart adds discovery: rights on Services and the internals Service. */}}
{{- define "clustered" }}{{ if and (include "enterprise" .) (ge (int .Values.neo4j.minimumClusterSize) 3) }}true{{ end }}{{ end }}

{{- define "prometheus" }}{{ if eq (get .Values.config "server.metrics.prometheus.enabled") "true" }}true{{ end }}{{ end }}

{{- define "selector" -}}
app: {{ required "neo4j.name" .Values.neo4j.name }}
helm.neo4j.com/instance: {{ include "fullname" . }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
helm.neo4j.com/neo4j.name: {{ .Values.neo4j.name }}
{{- with .Values.neo4j.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "clustering" -}}
helm.neo4j.com/clustering: {{ empty (include "clustered" .) | ternary "false" "true" | quote }}
{{- end }}
