{{- define "redirector.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "redirector.serviceAccount" -}}
{{- with .Values.serviceAccount -}}
{{ .name | default (ternary "redirector" "default" .create) }}
{{- end -}}
{{- end -}}

{{/* The authorities that `verify` trusts: at the path of Debian's bundle. */}}
{{- define "redirector.caMount" -}}
{{- if or .Values.caBundle.hostPath .Values.caBundle.configMap -}}
- name: ca-bundle
  mountPath: /etc/ssl/certs/ca-certificates.crt
  {{- if .Values.caBundle.configMap }}
  subPath: {{ .Values.caBundle.key }}
  {{- end }}
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "redirector.caVolume" -}}
{{- with .Values.caBundle -}}
{{- if .configMap -}}
- name: ca-bundle
  configMap:
    name: {{ .configMap }}
{{- else if .hostPath -}}
- name: ca-bundle
  hostPath:
    path: {{ .hostPath }}
    type: File
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "redirector.metadata" -}}
namespace: {{ .Release.Namespace }}
labels:
  app.kubernetes.io/name: redirector
{{- end -}}

{{/* JSON's strings, numbers, booleans and arrays are TOML's too. Helm's toToml writes every number
as a float. */}}
{{- define "redirector.toml" -}}
wildcards = {{ mustToJson .Values.wildcards }}
{{- if not .Values.routes }}
# Explicit: the agent treats a file that lost its routes as a mistake.
routes = []
{{ end }}
{{- range $section, $keys := .Values.config }}
{{- with $keys }}
[{{ $section }}]
{{- range $key, $value := . }}
{{ $key }} = {{ mustToJson $value }}
{{- end }}
{{ end }}
{{- end }}
{{- range .Values.routes }}
[[routes]]
source = {{ mustToJson .source }}
destination = {{ mustToJson .destination }}
{{- range $key, $value := omit . "source" "destination" }}
{{ $key }} = {{ mustToJson $value }}
{{- end }}
{{ end }}
{{- end -}}
