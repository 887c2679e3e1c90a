{{- define "fullname" -}}
{{ .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) }}
{{- end }}

{{- define "serviceAccount" }}{{ .Values.serviceAccount.name | default (include "fullname" .) }}{{ end }}

{{- /* Labels that select. No component and no role: masters and replicas look alike. */}}
{{- define "selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
{{- end }}

{{- define "labels" -}}
{{ include "selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* Image reference: (list root image). The real chart refuses images of other registries without the flag. */}}
{{- define "image" -}}
{{- $image := index . 1 }}
{{- $security := (index . 0).Values.global.security }}
{{- $name := printf "%s/%s" $image.registry $image.repository }}
{{- if not (or $security.allowInsecureImages (hasPrefix "docker.io/bitnami" $name)) }}
{{- fail (printf "image %s is not Bitnami's: set global.security.allowInsecureImages" $name) }}
{{- end }}
{{- $name }}{{ empty $image.digest | ternary (printf ":%v" $image.tag) (printf "@%s" $image.digest) }}
{{- end }}

{{- /* Requests and limits; the preset that is the default, CPU and memory with ephemeral storage. */}}
{{- define "resources" -}}
{{- $preset := get (dict
  "nano" (dict "requests" (dict "cpu" "100m" "memory" "128Mi" "ephemeral-storage" "50Mi") "limits" (dict "cpu" "150m" "memory" "192Mi" "ephemeral-storage" "2Gi"))) .resourcesPreset }}
{{- .resources | default $preset | default dict | toYaml }}
{{- end }}
