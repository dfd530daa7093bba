{{/* Names, labels, images and the parts of a pod that are the same everywhere. */}}

{{/* Cut to a length, with a digest of the whole in place of what was cut: {text, most}. */}}
{{- define "simsa.cut" -}}
{{- if le (len .text) (int .most) -}}
{{- .text -}}
{{- else -}}
{{- printf "%s-%s" (.text | trunc (int (sub .most 7)) | trimSuffix "-") (.text | sha256sum | trunc 6) -}}
{{- end -}}
{{- end -}}

{{- define "simsa.fullname" -}}
{{- $name := .Values.fullnameOverride | default (contains .Chart.Name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name)) -}}
{{- if eq $name "vllm" -}}
{{- fail "fullnameOverride: a Service called vllm gives pods variables such as VLLM_PORT, which vLLM takes for its own settings; choose another name" -}}
{{- end -}}
{{- if regexMatch "^[^a-z]" $name -}}
{{- fail (printf "the name %q begins with no letter, so Services cannot have it: set fullnameOverride" $name) -}}
{{- end -}}
{{- /* 59 with what a load test puts after it: pods of an indexed Job add their number, and 63 is the most. */ -}}
{{- include "simsa.cut" (dict "text" $name "most" 32) -}}
{{- end -}}

{{/* What selects pods: {root, component}. It never changes, and nothing that changes with a release stands in it. */}}
{{- define "simsa.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "simsa.labels" -}}
{{ include "simsa.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A reference that names one image and no other: {root, image, tag, where}. */}}
{{- define "simsa.image" -}}
{{- $tag := .image.tag | default .tag | toString -}}
{{- if eq $tag "latest" -}}
{{- fail (printf "%s.tag: latest is another image tomorrow; name a version or a digest" .where) -}}
{{- end -}}
{{- $repository := .image.repository -}}
{{- with (.root.Values.global).imageRegistry -}}
{{- $repository = printf "%s/%s" . $repository -}}
{{- end -}}
{{- if .image.digest -}}
{{- printf "%s:%s@%s" $repository $tag .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository $tag -}}
{{- end -}}
{{- end -}}

{{/* A value as text: whole numbers without an exponent, which Helm would write from a million on. */}}
{{- define "simsa.text" -}}
{{- if kindIs "float64" . -}}
{{- eq . (floor .) | ternary (printf "%.0f" .) (toString .) -}}
{{- else -}}
{{- toString . -}}
{{- end -}}
{{- end -}}

{{/* A quantity of Kubernetes', such as 76Gi, 80G or 1.5Ti, as bytes. */}}
{{- define "simsa.quantityBytes" -}}
{{- $unit := regexFind "[kMGTPE]i?$|Ki$" . -}}
{{- $number := trimSuffix $unit . | float64 -}}
{{- $base := hasSuffix "i" $unit | ternary 1024.0 1000.0 -}}
{{- range $power := list "" "k" "M" "G" "T" "P" "E" -}}
{{- if eq $power (trimSuffix "i" $unit | replace "K" "k") -}}
{{- printf "%.0f" $number -}}
{{- end -}}
{{- $number = mulf $number $base -}}
{{- end -}}
{{- end -}}

{{- define "simsa.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
readOnlyRootFilesystem: true
{{- end -}}

{{/* A pod's user and groups: the user's number. */}}
{{- define "simsa.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int . }}
runAsGroup: {{ int . }}
fsGroup: {{ int . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every pod begins with. Service links would set SIMSA_PORT, which the gateway reads, from a Service simsa. */}}
{{- define "simsa.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Authorities of the values' own, for containers that call others: variables, mount and volume, each empty without one. */}}
{{- define "simsa.trustEnvironment" -}}
{{- if .Values.trustedCa.configMap -}}
# OpenSSL's, for whatever is Python's own; huggingface_hub reads the other one where it uses requests.
- {name: SSL_CERT_FILE, value: /etc/simsa-trust/ca.crt}
- {name: REQUESTS_CA_BUNDLE, value: /etc/simsa-trust/ca.crt}
{{- end }}
{{- end -}}

{{- define "simsa.trustMount" -}}
{{- if .Values.trustedCa.configMap -}}
- {name: trust, mountPath: /etc/simsa-trust, readOnly: true}
{{- end }}
{{- end -}}

{{- define "simsa.trustVolume" -}}
{{- with .Values.trustedCa -}}
{{- if .configMap -}}
- name: trust
  configMap: {name: {{ .configMap }}, items: [{key: {{ .key | quote }}, path: ca.crt}]}
{{- end }}
{{- end }}
{{- end -}}

{{- define "simsa.serviceAccountName" -}}
{{- include "simsa.fullname" . -}}
{{- end -}}

{{/* Seconds between "you are to stop" and the stop itself, in which nobody sends there any more. */}}
{{- define "simsa.leaveSeconds" -}}20{{- end -}}

{{/*
How many pods a workload has whose number a scaler sets: {root, apiVersion, kind, name, least}. When scaling is switched on
`replicas` would leave the manifest, and the API server would take its default of 1 in the midst of the load: so what is
there stays, and never less than the least, since no scaler wakes what has none. Empty where nothing is there, or where
Helm does not see the cluster (`helm template`, GitOps tools).
*/}}
{{- define "simsa.replicasOfScaled" -}}
{{- with (lookup .apiVersion .kind .root.Release.Namespace .name).spec -}}
{{- max (int .replicas) (int $.least) -}}
{{- end -}}
{{- end -}}
