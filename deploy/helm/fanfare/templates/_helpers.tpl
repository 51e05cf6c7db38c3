{{- define "fanfare.name" -}}
{{- $name := printf "%s-%s" .Release.Name .Chart.Name }}
{{- if contains .Chart.Name .Release.Name }}{{ $name = .Release.Name }}{{ end }}
{{- $name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "fanfare.labels" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "fanfare.secret" -}}
{{- .Values.existingSecret | default (include "fanfare.name" .) }}
{{- end }}

{{- define "fanfare.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* Environment variables of settings: retention-age is FANFARE_RETENTION_AGE. */}}
{{- define "fanfare.settings" -}}
{{- range $name, $value := . }}
- name: FANFARE_{{ $name | upper | replace "-" "_" }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}

{{- define "fanfare.environment" -}}
- name: FANFARE_LOG
  value: {{ .Values.log | quote }}
- name: FANFARE_LOG_FORMAT
  value: json
- name: FANFARE_SHUTDOWN_GRACE
  value: {{ printf "%ds" (int .Values.shutdownGraceSeconds) }}
- name: FANFARE_JWT_SECRET_FILE
  value: /etc/fanfare/secret/jwt-secret
- name: FANFARE_METRICS_LISTEN
  value: 0.0.0.0:9101
- name: POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
{{- end }}

{{- define "fanfare.pod" -}}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ add .Values.drainSeconds .Values.shutdownGraceSeconds 5 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "fanfare.container" -}}
image: {{ include "fanfare.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
# Connections go elsewhere first; then the signal comes, and what is under way ends.
lifecycle: { preStop: { sleep: { seconds: {{ .Values.drainSeconds }} } } }
{{- end }}

{{- define "fanfare.secretVolume" -}}
- name: secret
  secret: { secretName: {{ include "fanfare.secret" . }}, defaultMode: 0440, items: [{ key: jwt-secret, path: jwt-secret }] }
{{- end }}

{{- define "fanfare.spread" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: {{ include "fanfare.labels" . | fromYaml | toJson }} }
{{- end }}
