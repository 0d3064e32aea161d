package test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
)

var churnTime = flag.Duration("churn", 20*time.Second, "how long TestPodChurn goes on")

// TestPodChurn makes, scales and deletes Deployments, deletes pods and kills containers
// and parts of the mesh, several times a second. Afterwards no process is left over,
// memory is as it was, and the objects are those that were made.
func TestPodChurn(t *testing.T) {
	if testing.Short() {
		t.Skip("churn takes its time: not in short runs")
	}
	bin := engineDir(t)
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Skipf("%v (%s)", err, refusal.Hint)
	}
	c := &churn{t: t, lateen: filepath.Join(bin, "lateen"), state: openTemp(t), replicas: map[string]int32{}}
	c.up()
	defer func() { _ = local.Down(context.WithoutCancel(t.Context()), c.state) }()
	var early map[string]int
	steps := 0
	for began := time.Now(); time.Since(began) < *churnTime; steps++ {
		c.step(steps)
		if early == nil && time.Since(began) > *churnTime/4 {
			early = c.settle()
		}
	}
	late := c.settle()
	t.Logf("%d steps, %d of them kills of parts; memory of the parts in MB: %v, at the end %v", steps, c.kills, early, late)
	for part, mb := range late {
		if mb > 2*early[part]+40 {
			t.Errorf("%s: memory grew from %d to %d MB", part, early[part], mb)
		}
	}
	fixture.Eventually(t, "only processes of pods that there are", func() error { // a deleted pod's end comes after its object's
		if n := c.sleepers(); n != c.wanted() {
			return fmt.Errorf("%d processes of pods, want %d", n, c.wanted())
		}
		return nil
	})
	if err := local.Down(t.Context(), c.state); err != nil {
		t.Fatal(err)
	}
	c.up()
	c.compare()
}

type churn struct {
	t             *testing.T
	lateen, state string
	client        kubernetes.Interface
	replicas      map[string]int32 // by Deployment
	kills         int
}

func (c *churn) up() {
	c.t.Helper()
	cmd := exec.Command(c.lateen, "up", "--detach", "--state", c.state, "--pods", "--publish", "80="+strconv.Itoa(ports.One()), "--publish", "443="+strconv.Itoa(ports.One()))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("lateen up: %v\n%s", err, out)
	}
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "http://api", QPS: -1, Timeout: 20 * time.Second,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(c.state, "api.sock"))
		}})
	if err != nil {
		c.t.Fatal(err)
	}
	c.client = client
}

// patiently repeats what fails while a part is away.
func (c *churn) patiently(what string, do func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = do(); err == nil || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
			return
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}

func (c *churn) step(n int) {
	deployments := c.client.AppsV1().Deployments("default")
	name := fmt.Sprintf("d%d", rand.IntN(6))
	_, exists := c.replicas[name]
	ctx := c.t.Context()
	switch dice := rand.IntN(100); {
	case n%120 == 119:
		c.killPart([]string{"apiserver", "node", "istiod"}[rand.IntN(3)])
	case !exists:
		c.replicas[name] = 1 + rand.Int32N(3)
		c.patiently("create", func() error {
			_, err := deployments.Create(ctx, sleeper(name, c.replicas[name]), metav1.CreateOptions{})
			return err
		})
	case dice < 50:
		c.replicas[name] = rand.Int32N(5)
		patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, c.replicas[name])
		c.patiently("scale", func() error {
			_, err := deployments.Patch(ctx, name, "application/merge-patch+json", patch, metav1.PatchOptions{})
			return err
		})
	case dice < 70:
		delete(c.replicas, name)
		c.patiently("delete", func() error { return deployments.Delete(ctx, name, metav1.DeleteOptions{}) })
	default:
		c.killPod()
	}
	time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond) // the pace of a busy user
}

func sleeper(name string, replicas int32) *appsv1.Deployment {
	grace := int64(0)
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{Name: "main", Image: "busybox", Command: []string{"sleep", "1000"}}}}}}}
}

// killPart ends a part of the mesh with SIGKILL; the supervisor starts it again.
func (c *churn) killPart(name string) {
	st, err := local.ReadRecord(c.state)
	if err != nil {
		c.t.Fatal(err)
	}
	pid := programOf(st.PID, name, name+"-") // of one that is a pod
	for _, p := range st.Parts {
		if p.Name == name {
			pid = p.PID
		}
	}
	if pid > 0 {
		c.kills++
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// killPod deletes a pod of ours.
func (c *churn) killPod() {
	list, err := c.client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 {
		return
	}
	pod := list.Items[rand.IntN(len(list.Items))].Name
	_ = c.client.CoreV1().Pods("default").Delete(c.t.Context(), pod, metav1.DeleteOptions{})
}

// wanted is how many pods there should be.
func (c *churn) wanted() (n int) {
	for _, r := range c.replicas {
		n += int(r)
	}
	return n
}

// sleepers are the processes of containers that there are.
func (c *churn) sleepers() (n int) {
	st, err := local.ReadRecord(c.state)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, p := range descendants(st.PID) {
		if p.run == "sleep 1000" {
			n++
		}
	}
	return n
}

// settle waits until every Deployment has the pods that it wants, and no pod is there
// beside them. It returns the parts' memory in MB.
func (c *churn) settle() map[string]int {
	c.t.Helper()
	want := c.wanted()
	var ready, all int
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		list, err := c.client.CoreV1().Pods("default").List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			continue
		}
		ready, all = 0, len(list.Items)
		for _, p := range list.Items {
			for _, cond := range p.Status.Conditions {
				if cond.Type == corev1.PodReady && cond.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if ready == want && all == want {
			return c.memory()
		}
	}
	c.t.Fatalf("%d pods, %d of them ready, want %d", all, ready, want)
	return nil
}

func (c *churn) memory() map[string]int {
	c.t.Helper()
	st, err := local.ReadRecord(c.state)
	if err != nil {
		c.t.Fatal(err)
	}
	mb := map[string]int{}
	for _, p := range st.Parts {
		mb[p.Name] = anonymous(p.PID)
	}
	mb["supervisor"] = anonymous(st.PID)
	return mb
}

// anonymous is what a process holds beside its files, in MB.
func anonymous(pid int) int {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "Pss_Anon:" {
			kb, _ := strconv.Atoi(fields[1])
			return kb / 1024
		}
	}
	return 0
}

// compare checks the objects after a new start against what was asked for.
func (c *churn) compare() {
	c.t.Helper()
	c.settle()
	list, err := c.client.AppsV1().Deployments("default").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	if len(list.Items) != len(c.replicas) {
		c.t.Errorf("%d Deployments, want %d", len(list.Items), len(c.replicas))
	}
	for _, d := range list.Items {
		if want, ok := c.replicas[d.Name]; !ok || *d.Spec.Replicas != want {
			c.t.Errorf("Deployment %s has %d replicas, want %d", d.Name, *d.Spec.Replicas, want)
		}
	}
}
