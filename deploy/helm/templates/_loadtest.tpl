{{/* The pods of a load test: the one that leads and sends nothing, and those that send. */}}

{{/* {root, component}: what both are. */}}
{{- define "simsa.loadtestPod" -}}
{{- $loadtest := .root.Values.loadtest -}}
{{- include "simsa.podBasics" .root }}
serviceAccountName: {{ include "simsa.serviceAccountName" .root }}
restartPolicy: Never
securityContext:
  {{- include "simsa.podSecurity" (include "simsa.gatewayUser" .root) | nindent 2 }}
{{- with $loadtest.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $loadtest.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "simsa.loadtestImage" -}}
{{- include "simsa.image" (dict "root" . "image" .Values.loadtest.image "tag" .Chart.AppVersion "where" "loadtest.image") -}}
{{- end -}}

{{- define "simsa.loadtestEnvironment" -}}
- {name: SIMSA_HOST, value: {{ include "simsa.fullname" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}}
- {name: SIMSA_PORT, value: {{ include "simsa.gatewayPort" . | quote }}}
- {name: SIMSA_REGISTRY, value: /etc/simsa/model_registry.yaml}
- {name: SIMSA_REPLICAS_FILE, value: /etc/simsa/replicas.yaml}
- {name: SIMSA_DATA_DIR, value: /data}
{{ include "simsa.secretVariable" (dict "root" . "name" "SIMSA_ADMIN_KEY") }}
{{- range $name, $value := .Values.gateway.settings }}
{{- if hasPrefix "SIMSA_DNS_" $name }}
- {name: {{ $name }}, value: {{ include "simsa.text" $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "simsa.loadtestContainer" -}}
image: {{ include "simsa.loadtestImage" .root }}
env:
  {{- include "simsa.loadtestEnvironment" .root | nindent 2 }}
  {{- with include "simsa.trustEnvironment" .root }}
  {{- . | nindent 2 }}
  {{- end }}
# A whole core, asked for and limited alike, so that nobody else is given a part of it.
resources:
  requests: {cpu: "1", memory: 2Gi}
  limits: {cpu: "1", memory: 2Gi}
securityContext:
  {{- include "simsa.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: registry, mountPath: /etc/simsa, readOnly: true}
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  {{- with include "simsa.trustMount" .root }}
  {{- . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "simsa.loadtestVolumes" -}}
- name: registry
  projected:
    sources:
      - configMap: {name: {{ include "simsa.fullname" . }}-registry}
      - configMap: {name: {{ include "simsa.fullname" . }}-replicas}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- with include "simsa.trustVolume" . }}
{{ . }}
{{- end }}
{{- end -}}

{{- define "simsa.loadtestLeader" -}}
{{- $loadtest := .Values.loadtest -}}
metadata:
  labels:
    {{- include "simsa.selector" (dict "root" . "component" "loadtest") | nindent 4 }}
spec:
  {{- include "simsa.loadtestPod" (dict "root" .) | nindent 2 }}
  # Ctrl-C's drain: what is under way is kept.
  terminationGracePeriodSeconds: 120
  containers:
    - name: lead
      command: [simsa, loadtest, run, /plan/plan.yaml]
      args: [--hosts, {{ int $loadtest.hosts | quote }}, --workers, "1", --listen, {{ eq .Values.listen "::" | ternary "[::]:5557" "0.0.0.0:5557" | quote }}, --wait-s, {{ int $loadtest.waitSeconds | quote }}]
      ports:
        - {name: lead, containerPort: 5557}
      {{- include "simsa.loadtestContainer" (dict "root" .) | nindent 6 }}
        - {name: plan, mountPath: /plan, readOnly: true}
  volumes:
    - name: plan
      configMap: {name: {{ include "simsa.fullname" . }}-loadtest}
    - name: data
      persistentVolumeClaim: {claimName: {{ include "simsa.fullname" . }}-loadtest}
    {{- include "simsa.loadtestVolumes" . | nindent 4 }}
{{- end -}}

{{- define "simsa.loadtestWorker" -}}
metadata:
  labels:
    {{- include "simsa.selector" (dict "root" . "component" "loadtest-worker") | nindent 4 }}
spec:
  {{- include "simsa.loadtestPod" (dict "root" .) | nindent 2 }}
  terminationGracePeriodSeconds: 60
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "simsa.selector" (dict "root" . "component" "loadtest-worker") | nindent 10 }}
  containers:
    - name: send
      command: [simsa, loadtest, worker]
      args:
        - {{ include "simsa.fullname" . }}-loadtest.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:5557
        - --workers
        - "1"
        - --wait-s
        - {{ int .Values.loadtest.waitSeconds | quote }}
      {{- include "simsa.loadtestContainer" (dict "root" .) | nindent 6 }}
  volumes:
    - name: data
      emptyDir: {sizeLimit: 8Gi}
    {{- include "simsa.loadtestVolumes" . | nindent 4 }}
{{- end -}}
