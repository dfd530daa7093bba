{{/*
The pod of an engine: {root, engine, role}, role being single, leader or worker (of an engine over several nodes).
Nothing here changes with the chart or with other models, so that each engine restarts when its own entry does.
*/}}

{{- define "simsa.engineSelector" -}}
{{ include "simsa.selector" (dict "root" .root "component" "engine") }}
simsa/model: {{ .engine.slug }}
{{- end -}}

{{- define "simsa.engineLabels" -}}
{{ include "simsa.labels" (dict "root" .root "component" "engine") }}
simsa/model: {{ .engine.slug }}
{{- end -}}

{{/* The file whose presence says that the weights are whole. */}}
{{- define "simsa.weightsMarker" -}}
/weights/.fetched/{{ printf "%s@%s" .repo .revision | sha256sum | trunc 16 }}
{{- end -}}

{{/*
Seconds between SIGTERM's announcement and SIGTERM. Older vLLM cuts off what it is generating, and a worker of an engine
over several nodes ends at once under its leader's answers: these wait for as long as a drain may take.
*/}}
{{- define "simsa.engineLeaveSeconds" -}}
{{- $leave := include "simsa.leaveSeconds" . | int -}}
{{- $drains := and .engine.drains (ne .role "worker") -}}
{{- $drains | ternary $leave (add $leave (int .root.Values.engines.drainSeconds)) -}}
{{- end -}}

{{/* {root, engine}: where nodes with its GPUs are. */}}
{{- define "simsa.enginePlace" -}}
{{- $place := get .root.Values.gpus .engine.gpu | default dict -}}
tolerations:
  - {key: {{ $place.resource | default "nvidia.com/gpu" }}, operator: Exists, effect: NoSchedule}
  {{- with $place.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $place.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $place.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* A volume's access mode never changes, so one that several may read is another volume. */}}
{{- define "simsa.weightsClaim" -}}
{{- $suffix := eq .root.Values.engines.storage.accessMode "ReadWriteMany" | ternary "-shared" "" -}}
{{- .engine.claim | default (print .engine.name $suffix) -}}
{{- end -}}

{{/*
What that volume asks for: {root, engine}. The registry's figure may become a smaller one, and a volume cannot: where the
values say no size, one that is there keeps its own if that is larger. Helm does not always see it, as in
simsa.replicasOfScaled.
*/}}
{{- define "simsa.weightsRequest" -}}
{{- $asked := printf "%dGi" (int .engine.storageGi) -}}
{{- if not (get .root.Values.models .engine.id).storageGi -}}
{{- with (lookup "v1" "PersistentVolumeClaim" .root.Release.Namespace (include "simsa.weightsClaim" .)).spec -}}
{{- $there := .resources.requests.storage | toString -}}
{{- if gt (include "simsa.quantityBytes" $there | float64) (include "simsa.quantityBytes" $asked | float64) -}}
{{- $asked = $there -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $asked -}}
{{- end -}}

{{- define "simsa.weightsVolume" -}}
- name: weights
  persistentVolumeClaim: {claimName: {{ include "simsa.weightsClaim" . }}}
{{- end -}}

{{- define "simsa.engineEnvironment" -}}
- {name: HF_HOME, value: /weights}
- {name: HF_HUB_OFFLINE, value: "1"}
- {name: HF_MODULES_CACHE, value: /scratch/modules}
- {name: HOME, value: /scratch}
- {name: USER, value: vllm}
- {name: TMPDIR, value: /tmp}
- {name: VLLM_NO_USAGE_STATS, value: "1"}
{{- end -}}

{{- define "simsa.engineContainer" -}}
{{- $place := get .root.Values.gpus .engine.gpu | default dict -}}
{{- $resource := $place.resource | default "nvidia.com/gpu" -}}
{{- $gpus := int .engine.gpus -}}
name: vllm
image: {{ .engine.image }}
command: [vllm, serve]
args:
  {{- range .engine.args }}
  - {{ . | quote }}
  {{- end }}
  {{- if ne .role "single" }}
  - "--nnodes"
  - "$(LWS_GROUP_SIZE)"
  - "--node-rank"
  - "$(LWS_WORKER_INDEX)"
  - "--master-addr"
  - "$(LWS_LEADER_ADDRESS)"
  {{- end }}
  {{- if eq .role "worker" }}
  - "--headless"
  {{- end }}
env:
  {{- include "simsa.engineEnvironment" . | nindent 2 }}
{{- if ne .role "worker" }}
ports:
  - {name: http, containerPort: 8000}
startupProbe:
  exec:
    command:
      - python3
      - -c
      - |
      {{- .root.Files.Get "files/scripts/first_token.py" | nindent 8 }}
      - "8000"
      - {{ .engine.servedName | quote }}
  periodSeconds: 10
  timeoutSeconds: 60
  failureThreshold: {{ int (ceil (divf .engine.startupSeconds 10)) }}
  # What hangs has nothing to drain: the pod's own grace would keep its GPUs for minutes more.
  terminationGracePeriodSeconds: 30
readinessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
livenessProbe:
  httpGet: {path: /health, port: http}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
  terminationGracePeriodSeconds: 30
{{- end }}
lifecycle:
  preStop:
    sleep: {seconds: {{ include "simsa.engineLeaveSeconds" . }}}
resources:
  requests:
    cpu: {{ mul (int ($place.cpu | default 8)) $gpus | quote }}
    memory: {{ mul (int ($place.memoryGi | default 64)) $gpus }}Gi
    {{ $resource }}: {{ $gpus | quote }}
  limits:
    memory: {{ mul (int ($place.memoryGi | default 64)) $gpus }}Gi
    {{ $resource }}: {{ $gpus | quote }}
securityContext:
  {{- include "simsa.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: weights, mountPath: /weights, readOnly: true}
  - {name: scratch, mountPath: /scratch}
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
{{- end -}}

{{- define "simsa.engineAwaitsWeights" -}}
- name: await-weights
  image: {{ .engine.image }}
  command: [python3, -c]
  args:
    - |
    {{- .root.Files.Get "files/scripts/await_weights.py" | nindent 6 }}
    - {{ include "simsa.weightsMarker" .engine }}
  resources:
    requests: {cpu: 10m, memory: 64Mi}
    limits: {memory: 128Mi}
  securityContext:
    {{- include "simsa.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: weights, mountPath: /weights, readOnly: true}
{{- end -}}

{{- define "simsa.enginePod" -}}
metadata:
  labels:
    {{- include "simsa.engineSelector" . | nindent 4 }}
    simsa/role: {{ .role }}
  annotations:
    simsa/model-id: {{ .engine.id | quote }}
spec:
  {{- include "simsa.podBasics" .root | nindent 2 }}
  serviceAccountName: {{ include "simsa.serviceAccountName" .root }}
  terminationGracePeriodSeconds: {{ add (include "simsa.engineLeaveSeconds" . | int) (int .root.Values.engines.drainSeconds) 30 }}
  securityContext:
    {{- include "simsa.podSecurity" .root.Values.engines.userId | nindent 4 }}
  {{- include "simsa.enginePlace" . | nindent 2 }}
  {{- if not .engine.claim }}
  initContainers:
    {{- include "simsa.engineAwaitsWeights" . | nindent 4 }}
  {{- end }}
  containers:
    - {{ include "simsa.engineContainer" . | indent 6 | trim }}
  volumes:
    {{- include "simsa.weightsVolume" . | nindent 4 }}
    - name: scratch
      emptyDir: {sizeLimit: 32Gi}
    - name: tmp
      emptyDir: {sizeLimit: 8Gi}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ int .root.Values.engines.sharedMemoryGi }}Gi}
{{- end -}}
