{{- define "fullname" -}}
{{ .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) }}
{{- end }}

{{- define "postgresql" }}{{ include "fullname" . }}-postgresql{{ end }}
{{- define "pgpool" }}{{ include "fullname" . }}-pgpool{{ end }}
{{- define "serviceAccount" }}{{ .Values.serviceAccount.name | default (include "fullname" .) }}{{ end }}

{{- /* Pgpool's objects are labelled with Pgpool's version, read from the image. */}}
{{- define "pgpoolVersion" }}{{ regexFind "^[0-9]+[.][0-9]+[.][0-9]+" (toString .Values.pgpool.image.tag) }}{{ end }}

{{- /* Labels that select: (list root component); the component may be empty. */}}
{{- define "selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- /* All labels: (list root component version). */}}
{{- define "labels" -}}
{{- $root := index . 0 -}}
{{- include "selector" (list $root (index . 1)) }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ index . 2 | default $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ $root.Chart.Name }}-{{ $root.Chart.Version }}
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

{{- /* Requests and limits: (resources preset); the two presets that are defaults, CPU and memory with ephemeral storage. */}}
{{- define "resources" -}}
{{- $preset := get (dict
  "nano" (dict "requests" (dict "cpu" "100m" "memory" "128Mi" "ephemeral-storage" "50Mi") "limits" (dict "cpu" "150m" "memory" "192Mi" "ephemeral-storage" "2Gi"))
  "micro" (dict "requests" (dict "cpu" "250m" "memory" "256Mi" "ephemeral-storage" "50Mi") "limits" (dict "cpu" "375m" "memory" "384Mi" "ephemeral-storage" "2Gi"))) .resourcesPreset }}
{{- .resources | default $preset | default dict | toYaml }}
{{- end }}

{{- /* Probes of a container: dict of values, liveness, readiness, startup (the handlers). */}}
{{- define "probes" -}}
{{- $root := . }}
{{- range $kind := list "liveness" "readiness" "startup" }}
{{- $custom := get $root.values (printf "custom%sProbe" (title $kind)) }}
{{- $probe := get $root.values (printf "%sProbe" $kind) }}
{{- if or $custom $probe.enabled }}
{{ $kind }}Probe: {{- $custom | default (merge (omit $probe "enabled") (get $root $kind)) | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Where a pod may run: (list root component values). */}}
{{- define "scheduling" -}}
{{- $values := index . 2 }}
{{- $term := dict "labelSelector" (dict "matchLabels" (include "selector" (list (index . 0) (index . 1)) | fromYaml)) "topologyKey" "kubernetes.io/hostname" }}
{{- $hard := dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term) }}
{{- $soft := dict "preferredDuringSchedulingIgnoredDuringExecution" (list (dict "weight" 1 "podAffinityTerm" $term)) }}
{{- $preset := get (dict "hard" $hard "soft" $soft) $values.podAntiAffinityPreset }}
affinity: {{- $values.affinity | default (dict "podAffinity" nil "podAntiAffinity" $preset "nodeAffinity" nil) | toYaml | nindent 2 }}
{{- range $key := list "nodeSelector" "tolerations" "topologySpreadConstraints" "priorityClassName" }}
{{- with get $values $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- with $values.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
{{- if $values.podSecurityContext.enabled }}
securityContext: {{- omit $values.podSecurityContext "enabled" | toYaml | nindent 2 }}
{{- end }}
automountServiceAccountToken: {{ $values.automountServiceAccountToken }}
serviceAccountName: {{ include "serviceAccount" (index . 0) }}
{{- end }}
