package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// schedulerName is the name that pods ask for when they ask for none.
const schedulerName = corev1.DefaultSchedulerName

// A scheduler binds every Pod to the one node, unless the Pod's own rules (node
// selector, required node affinity) say that it cannot run there. It counts nothing:
// the machine is shared with everything else on it.
type scheduler struct {
	client kubernetes.Interface
	node   string
	pods   listersv1.PodLister
	nodes  listersv1.NodeLister
	synced []cache.InformerSynced
	queue  workqueue.TypedRateLimitingInterface[cache.ObjectName]
	log    *slog.Logger
}

func newScheduler(o Options) *scheduler {
	pods, nodes := o.Informers.Core().V1().Pods(), o.Informers.Core().V1().Nodes()
	s := &scheduler{
		client: o.Client, node: o.Node.Name, pods: pods.Lister(), nodes: nodes.Lister(), log: o.Log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](10*time.Millisecond, 10*time.Second)),
	}
	consider := func(object any) {
		if pod, ok := object.(*corev1.Pod); ok && s.waits(pod) {
			s.queue.Add(cache.MetaObjectToName(pod))
		}
	}
	again := func(any) {
		all, _ := s.pods.List(labels.Everything())
		for _, pod := range all {
			consider(pod)
		}
	}
	onPods, err := pods.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: consider, UpdateFunc: func(_, object any) { consider(object) },
	})
	if err != nil {
		o.Log.Error("scheduler: pods are not watched", "error", err)
		return s
	}
	// Labels of the node decide who may run there.
	onNodes, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: again, UpdateFunc: func(_, object any) { again(object) },
	})
	if err != nil {
		o.Log.Error("scheduler: nodes are not watched", "error", err)
		return s
	}
	s.synced = []cache.InformerSynced{onPods.HasSynced, onNodes.HasSynced}
	return s
}

func (s *scheduler) waits(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && pod.DeletionTimestamp == nil && pod.Spec.SchedulerName == schedulerName &&
		len(pod.Spec.SchedulingGates) == 0
}

func (s *scheduler) run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), s.synced...) {
		return
	}
	stop := context.AfterFunc(ctx, s.queue.ShutDown)
	defer stop()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for s.next(ctx) {
			}
		})
	}
	running.Wait()
}

func (s *scheduler) next(ctx context.Context) bool {
	name, shutdown := s.queue.Get()
	if shutdown {
		return false
	}
	defer s.queue.Done(name)
	if err := s.schedule(ctx, name); err != nil {
		s.log.Debug("pod not scheduled yet", "pod", name.String(), "error", err)
		s.queue.AddRateLimited(name)
		return true
	}
	s.queue.Forget(name)
	return true
}

// schedule binds the Pod, or writes down why it cannot be.
func (s *scheduler) schedule(ctx context.Context, name cache.ObjectName) error {
	pod, err := s.pods.Pods(name.Namespace).Get(name.Name)
	if apierrors.IsNotFound(err) || err == nil && !s.waits(pod) {
		return nil
	}
	if err != nil {
		return err
	}
	node, err := s.nodes.Get(s.node)
	if err != nil {
		return err
	}
	if reason := unfit(pod, node); reason != "" {
		return s.refuse(ctx, pod, reason)
	}
	err = s.client.CoreV1().Pods(pod.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: s.node},
	}, metav1.CreateOptions{})
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone, or bound by somebody else
		return nil
	case err != nil:
		return err
	}
	message := fmt.Sprintf("Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, s.node)
	return s.tell(ctx, pod, corev1.EventTypeNormal, "Scheduled", "Binding", message)
}

// unfit says why the Pod must not run on the node, "" when it may.
func unfit(pod *corev1.Pod, node *corev1.Node) string {
	fits, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
	switch {
	case err != nil:
		return fmt.Sprintf("0/1 nodes are available: node affinity: %v.", err)
	case !fits:
		return "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
	case node.Spec.Unschedulable:
		return "0/1 nodes are available: 1 node(s) were unschedulable."
	}
	return ""
}

// refuse writes the condition and the Event by which users find out, once.
func (s *scheduler) refuse(ctx context.Context, pod *corev1.Pod, reason string) error {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Message == reason {
			return nil
		}
	}
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"Unschedulable","message":%q,"lastTransitionTime":%q}]}}`,
		reason, metav1.Now().UTC().Format(time.RFC3339))
	if _, err := s.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status"); err != nil {
		return err
	}
	return s.tell(ctx, pod, corev1.EventTypeWarning, "FailedScheduling", "Scheduling", reason)
}

// tell records an Event about the Pod. The Pod is what counts: an Event that cannot
// be written is not worth another try.
func (s *scheduler) tell(ctx context.Context, pod *corev1.Pod, kind, reason, action, note string) error {
	event := &eventsv1.Event{
		ObjectMeta:          metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name + "." + rand.String(16)},
		EventTime:           metav1.NowMicro(),
		ReportingController: schedulerName,
		ReportingInstance:   schedulerName,
		Type:                kind, Reason: reason, Action: action, Note: note,
		Regarding: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
		},
	}
	if _, err := s.client.EventsV1().Events(pod.Namespace).Create(ctx, event, metav1.CreateOptions{}); err != nil {
		s.log.Debug("event not recorded", "pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
	return nil
}
