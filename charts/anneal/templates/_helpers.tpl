{{- define "anneal.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- define "anneal.labels" -}}
app.kubernetes.io/name: anneal-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "anneal.name" -}}
{{ .Release.Name }}-operator
{{- end -}}
