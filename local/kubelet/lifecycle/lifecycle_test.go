package lifecycle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A play is a pod with a clock, on which a table's lines are played.
type play struct {
	t   *testing.T
	pod *Pod
	now time.Time
	did []string // what Step wanted since the last line
}

func begin(t *testing.T, manifest string) *play {
	t.Helper()
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(manifest), pod); err != nil {
		t.Fatal(err)
	}
	pod.Name, pod.Namespace, pod.UID = "p", "ns", "uid"
	s := &play{t: t, pod: New(pod, "10.244.0.1", epoch), now: epoch}
	s.step()
	return s
}

func (s *play) step() {
	actions, _ := s.pod.Step(s.now)
	for _, a := range actions {
		s.did = append(s.did, strings.TrimSpace(string(a.Do)+" "+a.Container))
	}
}

// play tells the pod what a line says and returns what it wants then.
func (s *play) play(line string) []string {
	s.t.Helper()
	s.did = nil
	words := strings.Fields(line)
	name := ""
	if len(words) > 1 {
		name = words[1]
	}
	switch words[0] {
	case "set":
		s.pod.SetUpDone([]string{"10.244.0.9"})
	case "unset":
		s.pod.SetUpFailed("no network", s.now)
	case "retry":
		s.pod.Retry()
	case "started":
		s.pod.Started(name, "id-"+name, "image", s.now)
	case "refused":
		s.pod.Failed(name, Cause(words[2]), "why", "", s.now)
	case "exit":
		code := 0
		fmt.Sscan(words[2], &code)
		s.pod.Exited(name, corev1.ContainerStateTerminated{ExitCode: int32(code), FinishedAt: metav1.NewTime(s.now)})
	case "hooked":
		s.pod.PostStarted(name, nil)
	case "unhooked":
		s.pod.PostStarted(name, errors.New("no"))
	case "stopped":
		s.pod.PreStopped(name)
	case "well", "unwell":
		s.pod.Probed(name, Kind(words[2]), words[0] == "well")
	case "delete":
		grace := int64(30)
		if name != "" {
			fmt.Sscan(name, &grace)
		}
		object := s.pod.Object().DeepCopy()
		object.DeletionTimestamp, object.DeletionGracePeriodSeconds = &metav1.Time{Time: s.now.Add(time.Duration(grace) * time.Second)}, &grace
		s.pod.Update(object)
	case "image":
		object := s.pod.Object().DeepCopy()
		object.Spec.Containers[0].Image = name
		s.pod.Update(object)
	case "open":
		object := s.pod.Object().DeepCopy()
		object.Status.Conditions = []corev1.PodCondition{{Type: "example.org/open", Status: corev1.ConditionTrue}}
		s.pod.Update(object)
	case "removed":
		s.pod.Removed()
	case "wait":
		d, err := time.ParseDuration(name)
		if err != nil {
			s.t.Fatal(err)
		}
		s.wait(d)
		return s.did
	default:
		s.t.Fatalf("no such line: %s", line)
	}
	s.step()
	return s.did
}

// wait lets time pass, calling Step when it asks to be called.
func (s *play) wait(d time.Duration) {
	end := s.now.Add(d)
	for range 1000 {
		_, next := s.pod.Step(s.now) // nothing new: it was called at this time
		if next.IsZero() || next.After(end) {
			break
		}
		s.now = next
		s.step()
	}
	s.now = end
	s.step()
}

const (
	oneContainer = `
spec: {containers: [{name: a}]}`
	never = `
spec: {restartPolicy: Never, containers: [{name: a}]}`
	onFailure = `
spec: {restartPolicy: OnFailure, containers: [{name: a}]}`
	hooks = `
spec: {containers: [{name: a, lifecycle: {postStart: {sleep: {seconds: 1}}, preStop: {sleep: {seconds: 1}}}}, {name: b}]}`
	probed = `
spec: {containers: [{name: a, startupProbe: {failureThreshold: 3}, livenessProbe: {terminationGracePeriodSeconds: 5}, readinessProbe: {}}]}`
	inits = `
spec: {initContainers: [{name: i}, {name: j}], containers: [{name: a}, {name: b}]}`
	sidecars = `
spec:
  initContainers: [{name: i}, {name: s, restartPolicy: Always, startupProbe: {}}, {name: t, restartPolicy: Always}]
  containers: [{name: a}]`
)

func TestSteps(t *testing.T) {
	type line struct{ told, wants string }
	tables := []struct {
		name, pod string
		lines     []line
	}{
		{"a container starts once the network is there, and restarts with growing pauses", oneContainer, []line{
			{"unset", ""},
			{"wait 499ms", ""},
			{"wait 1ms", "set up"},
			{"set", "start a"},
			{"started a", ""},
			{"exit a 1", "start a"},
			{"started a", ""},
			{"exit a 1", "back off a"},
			{"wait 9.9s", ""},
			{"wait 100ms", "start a"},
			{"started a", ""},
			{"exit a 0", "back off a"},
			{"wait 20s", "start a"},
			{"started a", ""},
			{"wait 10m", ""},
			{"exit a 1", "start a"},
		}},
		{"a container that fails under Never ends the pod", never, []line{
			{"set", "start a"}, {"started a", ""}, {"exit a 3", "tear down"}, {"delete", "delete"},
		}},
		{"OnFailure starts again what failed only", onFailure, []line{
			{"set", "start a"}, {"started a", ""}, {"exit a 1", "start a"}, {"started a", ""}, {"exit a 0", "tear down"},
		}},
		{"an image that is not known is tried again with growing pauses", oneContainer, []line{
			{"set", "start a"},
			{"refused a ErrImagePull", ""}, {"wait 10s", "start a"},
			{"refused a ErrImagePull", ""}, {"wait 19s", ""}, {"wait 1s", "start a"},
		}},
		{"configuration that was missing is looked for when something changes", oneContainer, []line{
			{"set", "start a"}, {"refused a CreateContainerConfigError", ""}, {"retry", "start a"},
			{"refused a CreateContainerConfigError", ""}, {"wait 2s", "start a"},
		}},
		{"a program that cannot run counts as one that failed", never, []line{
			{"set", "start a"}, {"refused a RunContainerError", "tear down"},
		}},
		{"hooks hold the next container, and the stop signal", hooks, []line{
			{"set", "start a"}, {"started a", "post-start a"}, {"hooked a", "start b"}, {"started b", ""},
			{"delete", "stopping b; terminate b; stopping a; pre-stop a"}, {"stopped a", "terminate a"},
			{"exit b 0", ""}, {"exit a 0", "tear down; delete"},
		}},
		{"a hook does not outlast the grace period", hooks, []line{
			{"set", "start a"}, {"started a", "post-start a"}, {"hooked a", "start b"}, {"started b", ""}, {"exit b 0", "start b"}, {"started b", ""},
			{"delete 5", "stopping b; terminate b; stopping a; pre-stop a"},
			{"wait 5s", "kill b; terminate a"}, {"wait 2s", "kill a"},
		}},
		{"a failed hook costs the container its life", hooks, []line{
			{"set", "start a"}, {"started a", "post-start a"}, {"unhooked a", "stopping a; pre-stop a; start b"},
			{"stopped a", "terminate a"}, {"exit a 137", "start a"},
		}},
		{"probes come after the startup probe; a liveness probe restarts", probed, []line{
			{"set", "start a"}, {"started a", "probe startup a"}, {"well a Startup", "probe a"}, {"well a Readiness", ""},
			{"unwell a Liveness", "stopping a; terminate a"}, {"wait 4s", ""}, {"wait 1s", "kill a"}, {"exit a 137", "start a"},
		}},
		{"a startup probe that fails restarts", probed, []line{
			{"set", "start a"}, {"started a", "probe startup a"}, {"unwell a Startup", "stopping a; terminate a"}, {"exit a 143", "start a"},
		}},
		{"init containers run one after the other, a failed one again", inits, []line{
			{"set", "start i"}, {"started i", ""}, {"exit i 1", "start i"}, {"started i", ""}, {"exit i 0", "start j"},
			{"started j", ""}, {"exit j 0", "start a"}, {"started a", "start b"}, {"started b", ""}, {"exit a 1", "start a"},
		}},
		{"native sidecars gate on their startup probe, restart, and end last", sidecars, []line{
			{"set", "start i"}, {"started i", ""}, {"exit i 0", "start s"}, {"started s", "probe startup s"},
			{"well s Startup", "start t"}, {"started t", "start a"}, {"started a", ""},
			{"exit s 0", "start s"}, {"started s", "probe startup s"},
			{"delete", "stopping a; terminate a; stopping t; stopping s"}, {"exit a 0", "terminate t"}, {"exit t 0", "terminate s"},
			{"wait 29s", ""}, {"wait 1s", "kill s"}, {"exit s 137", "tear down; delete"},
		}},
		{"sidecars end when a job is done", strings.Replace(sidecars, "spec:", "spec:\n  restartPolicy: OnFailure", 1), []line{
			{"set", "start i"}, {"started i", ""}, {"exit i 0", "start s"}, {"started s", "probe startup s"},
			{"well s Startup", "start t"}, {"started t", "start a"}, {"started a", ""},
			{"exit a 0", "stopping t; terminate t; stopping s"}, {"exit t 0", "terminate s"}, {"exit s 0", "tear down"},
		}},
		{"a container with another image is started again", oneContainer, []line{
			{"set", "start a"}, {"started a", ""}, {"image other", "stopping a; terminate a"}, {"exit a 0", "start a"},
		}},
		{"a deletion without grace kills at once", oneContainer, []line{
			{"set", "start a"}, {"started a", ""}, {"delete 0", "stopping a; terminate a; kill a"}, {"exit a 137", "tear down; delete"},
		}},
		{"a pod that is gone from the API is killed, whatever its grace", oneContainer, []line{
			{"set", "start a"}, {"started a", ""}, {"delete", "stopping a; terminate a"}, {"removed", "kill a"}, {"exit a 137", "tear down; delete"},
		}},
		{"a pod deleted while it is set up starts nothing", oneContainer, []line{
			{"delete", "tear down; delete"}, {"set", ""},
		}},
		{"a pod deleted while a container starts waits for that", oneContainer, []line{
			{"set", "start a"}, {"delete", ""}, {"started a", "stopping a; terminate a"}, {"exit a 0", "tear down; delete"},
		}},
		{"until its grace is over", oneContainer, []line{
			{"set", "start a"}, {"delete 3", ""}, {"wait 3s", "kill a"}, {"refused a RunContainerError", "tear down; delete"},
		}},
		{"a deadline ends the pod", `
spec: {activeDeadlineSeconds: 7, containers: [{name: a}]}`, []line{
			{"set", "start a"}, {"started a", ""}, {"wait 6s", ""}, {"wait 1s", "stopping a; terminate a"}, {"exit a 143", "tear down"},
		}},
		{"a rule of exit codes restarts what the policy does not", `
spec:
  restartPolicy: Never
  containers: [{name: a, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]`, []line{
			{"set", "start a"}, {"started a", ""}, {"exit a 42", "start a"}, {"started a", ""}, {"exit a 1", "tear down"},
		}},
	}
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			s := begin(t, table.pod)
			for i, l := range table.lines {
				if got := strings.Join(s.play(l.told), "; "); got != l.wants {
					t.Fatalf("line %d, %q: wants %q, not %q", i+1, l.told, got, l.wants)
				}
			}
		})
	}
}

// says is the part of a status that users look at.
func says(s corev1.PodStatus) string {
	words := []string{string(s.Phase)}
	for _, c := range slices.Concat(s.InitContainerStatuses, s.ContainerStatuses) {
		state := ""
		switch {
		case c.State.Running != nil:
			state = "running"
			if c.Ready {
				state = "ready"
			}
		case c.State.Waiting != nil:
			state = c.State.Waiting.Reason
		case c.State.Terminated != nil:
			state = fmt.Sprintf("ended(%d)", c.State.Terminated.ExitCode)
		}
		words = append(words, fmt.Sprintf("%s=%s/%d", c.Name, state, c.RestartCount))
	}
	for _, c := range s.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled {
			words = append(words, string(c.Type))
		}
	}
	return strings.Join(words, " ")
}

func TestStatus(t *testing.T) {
	type line struct{ told, says string }
	tables := []struct {
		name, pod string
		lines     []line
	}{
		{"a pod gets ready, crashes and comes back", oneContainer, []line{
			{"", "Pending a=ContainerCreating/0 Initialized"},
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started a", "Running a=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
			{"exit a 1", "Running a=ended(1)/0 PodReadyToStartContainers Initialized"},
			{"started a", "Running a=ready/1 PodReadyToStartContainers Initialized Ready ContainersReady"},
			{"exit a 1", "Running a=CrashLoopBackOff/1 PodReadyToStartContainers Initialized"},
		}},
		{"init containers", inits, []line{
			{"set", "Pending i=PodInitializing/0 j=PodInitializing/0 a=PodInitializing/0 b=PodInitializing/0 PodReadyToStartContainers"},
			{"started i", "Pending i=running/0 j=PodInitializing/0 a=PodInitializing/0 b=PodInitializing/0 PodReadyToStartContainers"},
			{"exit i 0", "Pending i=ended(0)/0 j=PodInitializing/0 a=PodInitializing/0 b=PodInitializing/0 PodReadyToStartContainers"},
			{"started j", "Pending i=ended(0)/0 j=running/0 a=PodInitializing/0 b=PodInitializing/0 PodReadyToStartContainers"},
			{"exit j 0", "Pending i=ended(0)/0 j=ended(0)/0 a=ContainerCreating/0 b=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started a", "Pending i=ended(0)/0 j=ended(0)/0 a=ready/0 b=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started b", "Running i=ended(0)/0 j=ended(0)/0 a=ready/0 b=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
		}},
		{"an unknown image", oneContainer, []line{
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"refused a ErrImagePull", "Pending a=ErrImagePull/0 PodReadyToStartContainers Initialized"},
			{"wait 10s", "Pending a=ErrImagePull/0 PodReadyToStartContainers Initialized"},
			{"refused a ErrImagePull", "Pending a=ImagePullBackOff/0 PodReadyToStartContainers Initialized"},
		}},
		{"a program that is not there", oneContainer, []line{
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"refused a RunContainerError", "Running a=RunContainerError/0 PodReadyToStartContainers Initialized"},
			{"refused a RunContainerError", "Running a=CrashLoopBackOff/1 PodReadyToStartContainers Initialized"},
		}},
		{"a job that succeeds", never, []line{
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started a", "Running a=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
			{"exit a 0", "Succeeded a=ended(0)/0 Initialized"},
		}},
		{"a pod that is deleted", oneContainer, []line{
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started a", "Running a=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
			{"delete", "Running a=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
			{"exit a 143", "Failed a=ended(143)/0 Initialized"},
		}},
		{"a readiness gate", `
spec: {readinessGates: [{conditionType: example.org/open}], containers: [{name: a}]}`, []line{
			{"set", "Pending a=ContainerCreating/0 PodReadyToStartContainers Initialized"},
			{"started a", "Running a=ready/0 PodReadyToStartContainers Initialized ContainersReady"},
			{"open", "Running a=ready/0 PodReadyToStartContainers Initialized Ready ContainersReady"},
		}},
	}
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			s := begin(t, table.pod)
			for i, l := range table.lines {
				if l.told != "" {
					s.play(l.told)
				}
				if got := says(s.pod.Status(s.now)); got != l.says {
					t.Fatalf("line %d, %q:\n got %s\nwant %s", i+1, l.told, got, l.says)
				}
			}
		})
	}
}

func TestANewNodeStartsAnew(t *testing.T) {
	const ran = `
status:
  phase: Running
  startTime: "2025-12-31T00:00:00Z"
  initContainerStatuses: [{name: i, restartCount: 0, state: {terminated: {exitCode: 0}}, containerID: x}]
  containerStatuses:
  - {name: a, restartCount: 2, containerID: y, state: {running: {startedAt: "2025-12-31T00:00:00Z"}}}`
	for _, c := range []struct{ name, pod, wants, says string }{
		{"what ran counts a restart", `
spec: {initContainers: [{name: i}], containers: [{name: a}]}` + ran, "start i", "Pending i=ended(0)/0 a=PodInitializing/2 PodReadyToStartContainers"},
		{"what is not to be restarted failed", `
spec: {restartPolicy: Never, initContainers: [{name: i}], containers: [{name: a}]}` + ran, "", "Failed i=ended(0)/0 a=ended(137)/2"},
		{"what is over stays so", `
spec: {restartPolicy: Never, containers: [{name: a}]}
status: {phase: Succeeded, containerStatuses: [{name: a, restartCount: 0, state: {terminated: {exitCode: 0}}}]}`, "", "Succeeded a=ended(0)/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := begin(t, c.pod)
			if got := strings.Join(s.play("set"), "; "); got != c.wants {
				t.Errorf("wants %q, not %q", got, c.wants)
			}
			if got := says(s.pod.Status(s.now)); got != c.says {
				t.Errorf("\n got %s\nwant %s", got, c.says)
			}
		})
	}
}

func TestARestartIsNumbered(t *testing.T) {
	s := begin(t, oneContainer)
	s.play("set")
	for attempt := range int32(3) {
		if attempt > 0 {
			s.pod.Exited("a", corev1.ContainerStateTerminated{ExitCode: 1, FinishedAt: metav1.NewTime(s.now)})
			s.now = s.now.Add(maxBackOff)
			actions, _ := s.pod.Step(s.now)
			if len(actions) != 1 || actions[0].Attempt != attempt {
				t.Fatalf("attempt %d: %v", attempt, actions)
			}
		}
		s.play("started a")
	}
}
