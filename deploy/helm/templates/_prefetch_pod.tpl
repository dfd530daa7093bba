{{/*
The pod that fetches an engine's weights: {root, engine}. A ReadWriteOnce volume is attached to one node at a time, and
the engine's pod holds it while it waits, so this one goes where that one is.
*/}}
{{- define "simsa.prefetchPod" -}}
{{- $values := .root.Values -}}
metadata:
  labels:
    {{- include "simsa.selector" (dict "root" .root "component" "prefetch") | nindent 4 }}
    simsa/model: {{ .engine.slug }}
spec:
  {{- include "simsa.podBasics" .root | nindent 2 }}
  serviceAccountName: {{ include "simsa.serviceAccountName" .root }}
  restartPolicy: OnFailure
  securityContext:
    {{- include "simsa.podSecurity" $values.engines.userId | nindent 4 }}
  {{- include "simsa.enginePlace" . | nindent 2 }}
  {{- if eq $values.engines.storage.accessMode "ReadWriteOnce" }}
  affinity:
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "simsa.engineSelector" . | nindent 14 }}
  {{- end }}
  containers:
    - name: fetch
      image: {{ .engine.image }}
      command: [python3, -c]
      args:
        - |
        {{- .root.Files.Get "files/scripts/fetch_weights.py" | nindent 10 }}
        - {{ .engine.repo | quote }}
        - {{ .engine.revision | quote }}
        - {{ include "simsa.weightsMarker" .engine }}
      env:
        - {name: HF_HOME, value: /weights}
        - {name: HOME, value: /tmp}
        # Weights are read once: a cache of their pieces would only take the volume's room.
        - {name: HF_XET_CHUNK_CACHE_SIZE_BYTES, value: "0"}
        {{- with $values.engines.hubUrl }}
        - {name: HF_ENDPOINT, value: {{ . | quote }}}
        {{- end }}
        - name: HF_TOKEN
          valueFrom:
            secretKeyRef: {name: {{ include "simsa.secretName" .root }}, key: HF_TOKEN, optional: true}
        {{- with include "simsa.trustEnvironment" .root }}
        {{- . | nindent 8 }}
        {{- end }}
      resources:
        # Little: a ReadWriteOnce volume binds it to the engine's node, which may have hardly anything left.
        requests: {cpu: 100m, memory: 512Mi}
        limits: {memory: 8Gi}
      securityContext:
        {{- include "simsa.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: weights, mountPath: /weights}
        - {name: tmp, mountPath: /tmp}
        {{- with include "simsa.trustMount" .root }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "simsa.weightsVolume" . | nindent 4 }}
    - name: tmp
      emptyDir: {sizeLimit: 8Gi}
    {{- with include "simsa.trustVolume" .root }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}
