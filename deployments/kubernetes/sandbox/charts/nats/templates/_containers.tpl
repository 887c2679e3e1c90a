{{- define "nats" -}}
name: nats
{{ include "image" .Values.container.image }}
args: [--config, /etc/nats-config/nats.conf]
ports:
  - {name: nats, containerPort: {{ .Values.config.nats.port }}}
  {{- if .Values.config.cluster.enabled }}
  - {name: cluster, containerPort: {{ .Values.config.cluster.port }}}
  {{- end }}
  {{- if .Values.config.monitor.enabled }}
  - {name: monitor, containerPort: {{ .Values.config.monitor.port }}}
  {{- end }}
env:
  - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
  - {name: SERVER_NAME, value: {{ .Values.config.serverNamePrefix }}$(POD_NAME)}
  {{- include "env" .Values.container.env | nindent 2 }}
lifecycle: {preStop: {exec: {command: [nats-server, -sl=ldm=/var/run/nats/nats.pid]}}}
{{- if .Values.config.monitor.enabled }}
{{- range $kind, $probe := dict
  "startup" (dict "path" "/healthz" "period" 10 "failures" 90)
  "readiness" (dict "path" "/healthz?js-server-only=true" "period" 10 "failures" 3)
  "liveness" (dict "path" "/healthz?js-enabled-only=true" "period" 30 "failures" 3) }}
{{ $kind }}Probe:
  httpGet: {path: {{ $probe.path | quote }}, port: monitor}
  initialDelaySeconds: 10
  timeoutSeconds: 5
  periodSeconds: {{ $probe.period }}
  successThreshold: 1
  failureThreshold: {{ $probe.failures }}
{{- end }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/nats-config}
  - {name: pid, mountPath: /var/run/nats}
  {{- with .Values.config.jetstream }}
  {{- if and .enabled .fileStore.enabled .fileStore.pvc.enabled }}
  - {name: {{ include "fullname" $ }}-js, mountPath: {{ .fileStore.dir }}}
  {{- end }}
  {{- end }}
resources: {{- toYaml .Values.container.resources | nindent 2 }}
{{- end }}

{{- define "reloader" -}}
name: reloader
{{ include "image" .Values.reloader.image }}
args: [-pid, /var/run/nats/nats.pid, -config, /etc/nats-config/nats.conf]
volumeMounts:
  - {name: pid, mountPath: /var/run/nats}
  - {name: config, mountPath: /etc/nats-config}
{{- end }}

{{- define "exporter" -}}
name: prom-exporter
{{ include "image" .Values.promExporter.image }}
args: [-port={{ .Values.promExporter.port }}, -connz, -routez, -subz, -varz, -prefix=nats, -use_internal_server_id, -jsz=all, "http://localhost:{{ .Values.config.monitor.port }}/"]
ports:
  - {name: prom-metrics, containerPort: {{ .Values.promExporter.port }}}
{{- end }}
