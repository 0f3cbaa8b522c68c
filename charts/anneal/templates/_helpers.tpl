{{- define "anneal.image" -}}
{{- $image := index . 0 -}}
{{- $chart := index . 1 -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default $chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "anneal.name" -}}
{{ .Release.Name }}-operator
{{- end -}}

{{- define "anneal.selector" -}}
app.kubernetes.io/name: anneal-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "anneal.labels" -}}
{{ include "anneal.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "anneal.metadata" -}}
name: {{ include "anneal.name" . }}
namespace: {{ .Release.Namespace }}
labels: {{- include "anneal.labels" . | nindent 2 }}
{{- end -}}
