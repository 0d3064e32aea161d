package local

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
	"github.com/lateen-mesh/lateen/install/crds"
	"github.com/lateen-mesh/lateen/local/apply"
)

const (
	nodeName = "lateen"
	apiPort  = 6443
	// podsWait bounds how long the start waits for pods that neither get ready nor fail.
	podsWait = 60 * time.Second

	// damageName is in the API's directory: what it could not read of the objects.
	damageName = "damage"
)

// An engine is what a mesh with pods has beyond one without: the Kubernetes API, the
// node that runs the pods, and the objects of files, which it applies.
type engine struct {
	api, node *process
	outside   *outsideHalf // nil where pods cannot run
	client    kubernetes.Interface
	files     *apply.Applier
	own       *meshObjects // nil where pods cannot run
	noPods    string       // why pods cannot run on this machine, "" when they can
	damage    string       // the file in which the API says what it could not read of the objects
}

// wantsPods reports whether the API and the node are wanted: asked for, implied by
// workloads in the files, or by there being no files at all.
func (s *supervisor) wantsPods() (bool, error) {
	if s.o.Pods || len(s.o.Paths) == 0 {
		return true, nil
	}
	files, gone := s.tree().Files()
	for _, err := range gone {
		return false, &Error{err, "lateen up takes files and directories of YAML"}
	}
	for _, path := range files {
		text := s.stdin
		if path != file.Stdin {
			var err error
			if text, err = os.ReadFile(path); err != nil {
				return false, err
			}
		}
		docs, _ := config.Documents(path, text)
		if slices.ContainsFunc(docs, func(d config.Document) bool { return isWorkload(d.Object.Kind) }) {
			return true, nil
		}
	}
	return false, nil
}

func isWorkload(k config.Kind) bool {
	switch k {
	case "Pod", "Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet", "Job", "CronJob":
		return true
	}
	return false
}

func (s *supervisor) tree() file.Tree {
	return file.Tree{Paths: s.o.Paths, Hidden: s.state.dir, Log: s.log()}
}

// prepareEngine does all that can fail before the parts of a mesh with pods run.
func (s *supervisor) prepareEngine() error {
	e := &engine{}
	s.engine = e
	if err := os.MkdirAll(s.state.path("api"), 0o700); err != nil {
		return &Error{fmt.Errorf("state directory: %w", err), "name another one: --state DIR"}
	}
	port, err := s.apiPort()
	if err != nil {
		return err
	}
	if err := s.state.write("crds.yaml", crds.All()); err != nil {
		return err
	}
	if err := s.prepareAPI(port); err != nil {
		return err
	}
	if err := s.prepareNode(port); err != nil {
		return err
	}
	if e.noPods == "" { // else control plane and gateway are processes of this machine
		if e.own, err = newMeshObjects(s.o, s.installed()); err != nil {
			return err
		}
	}
	api := apiConfig(s.state.socket("api.sock"))
	if e.client, err = kubernetes.NewForConfig(api); err != nil {
		return err
	}
	e.files, err = apply.New(apply.Options{Config: api, Tree: s.tree(), Stdin: s.stdin, Own: e.ownObjects, Memory: s.state.path(appliedName), Hold: s.awaitInjection, Log: s.log()})
	return err
}

// apiPort is where the API listens: where it did last time, if that is free, so that
// kubeconfigs that somebody copied stay good.
func (s *supervisor) apiPort() (int, error) {
	wanted := cmp.Or(s.o.APIPort, apiPort)
	if text, err := os.ReadFile(s.state.path("api.port")); err == nil && s.o.APIPort == 0 {
		if n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 16); err == nil {
			wanted = int(n)
		}
	}
	port, err := s.state.ports.loopback(wanted)
	if err != nil {
		return 0, err
	}
	if s.o.APIPort != 0 && port != s.o.APIPort {
		return 0, &Error{fmt.Errorf("port %d for the Kubernetes API is in use", s.o.APIPort), "choose another one with --api-port, or leave it out"}
	}
	return port, s.state.write("api.port", []byte(strconv.Itoa(port)))
}

func (s *supervisor) prepareAPI(port int) error {
	program, err := s.o.binary("lateen-apiserver")
	if err != nil {
		return err
	}
	s.engine.damage = s.state.path(filepath.Join("api", damageName))
	if err := os.Remove(s.engine.damage); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.engine.api, err = s.newProcess("apiserver", []string{program, "--state", s.state.path("api"),
		"--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), "--socket", s.state.socket("api.sock"),
		"--kubeconfig", kubeconfigPath(s.state.dir), "--kubelet", s.state.socket("node.sock"), "--crds", s.state.path("crds.yaml"),
		"--node", nodeName, "--node-address", nodeAddress})
	return err
}

// ownObjects are those of the engine itself.
func (e *engine) ownObjects() []apply.Own {
	if e.own == nil {
		return nil
	}
	return e.own.all()
}

// startEngine starts the parts together: each waits for those it needs by itself.
func (s *supervisor) startEngine(ctx context.Context, spawn func(func(context.Context))) error {
	e := s.engine
	spawn(e.api.run)
	if e.node != nil {
		spawn(e.node.run)
	} else {
		spawn(s.control.run)
	}
	s.progress("starting the Kubernetes API")
	if err := s.await(ctx, e.api, "the Kubernetes API", func() error { return s.apiSays(ctx, "/livez") }); err != nil || ctx.Err() != nil {
		return err
	}
	spawn(e.files.Run)
	spawn(s.saveOnChange)
	if e.node == nil {
		return s.awaitProcesses(ctx, spawn)
	}
	spawn(func(ctx context.Context) { e.own.follow(ctx, s, e.files.Again) })
	select {
	case <-e.files.Applied():
	case <-ctx.Done():
		return nil
	}
	// Kinds of the mesh may still be on their way; who is told "ready" may apply them at once.
	s.progress("making the mesh's kinds known")
	if err := s.await(ctx, e.api, "the Kubernetes API", func() error { return s.apiSays(ctx, "/readyz") }); err != nil || ctx.Err() != nil {
		return err
	}
	e.files.Again(ctx)
	return s.awaitPods(ctx)
}

// apiSays asks one of the API's own checks.
func (s *supervisor) apiSays(ctx context.Context, check string) error {
	return s.engine.client.CoreV1().RESTClient().Get().AbsPath(check).Do(ctx).Error()
}

// injectionWait bounds how long workloads of files wait for the control plane to see to their pods.
const injectionWait = 10 * time.Second

// awaitInjection waits until the control plane answers the API about pods. Before, the API would
// refuse them, and their controllers would try again later and later.
func (s *supervisor) awaitInjection(ctx context.Context) {
	if s.engine.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, injectionWait)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for controlReady(ctx, s.state.dir) != nil {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}

// awaitPods waits until every pod is ready or has a fault that waiting will not mend.
func (s *supervisor) awaitPods(ctx context.Context) error {
	deadline := time.NewTimer(podsWait)
	defer deadline.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var since time.Time // all is there
	for {
		if part := s.engine.node.status(); part.Exit != "" {
			return &Error{fmt.Errorf("the node ended: %s", lastWords(part)), "its log: " + part.Log}
		}
		pods, err := s.pods(ctx)
		if err == nil {
			ready, all := countPods(pods)
			s.progress(fmt.Sprintf("%d of %d pods ready", ready, all))
			waits := slices.ContainsFunc(pods, func(p Pod) bool { return !p.leaves() && !p.settled() })
			if waits || !deployed(ctx, s.engine.client) || !served(ctx, s.engine.client) {
				since = time.Time{}
			} else if since.IsZero() {
				since = time.Now()
			}
			if !since.IsZero() && time.Since(since) > gatherTime && s.synced(ctx) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-deadline.C:
			return nil // what is not ready is shown with the status
		case <-poll.C:
		}
	}
}

// gatherTime is longer than the control plane lets changes gather before it tells proxies of them.
const gatherTime = 80 * time.Millisecond

// synced reports whether all proxies have what the control plane knows. Where there is no control
// plane nobody is waited for: its pod shows why.
func (s *supervisor) synced(ctx context.Context) bool {
	st, err := controlStatus(ctx, s.state.dir)
	return err != nil || !slices.ContainsFunc(st.Proxies, func(p control.ProxyStatus) bool { return !p.Synced && len(p.Refused) == 0 })
}

// saveOnChange writes down what the engine has done, now and then, for `status`.
func (s *supervisor) saveOnChange(ctx context.Context) {
	every := time.NewTicker(500 * time.Millisecond)
	defer every.Stop()
	var last []byte
	for {
		var r record
		s.engine.record(&r)
		if now := fmt.Appendf(nil, "%+v", r); !bytes.Equal(now, last) {
			last = now
			s.save()
		}
		select {
		case <-ctx.Done():
			return
		case <-every.C:
		}
	}
}

func (e *engine) record(r *record) {
	if e.files != nil {
		st := e.files.Status()
		r.Objects, r.Files, r.Problems = st.Objects, st.Files, st.Problems
	}
	if lost, err := os.ReadFile(e.damage); err == nil { // absent as long as all is well
		r.Problems = append(slices.Clip(r.Problems), config.Problem{Message: strings.TrimSpace(string(lost)),
			Hint: "apply what is missing again; the state that was kept may be removed", Severity: config.Warning})
	}
	r.NoPods = e.noPods
	if e.outside != nil {
		r.Published = e.outside.all()
	}
}

func (s *supervisor) progress(what string) {
	if s.o.Progress != nil {
		s.o.Progress(what)
	}
}

// pods are those of the whole mesh, in order of namespace and name.
func (s *supervisor) pods(ctx context.Context) ([]Pod, error) {
	return listPods(ctx, s.engine.client)
}

// apiConfig reaches the API over its socket, whose owner needs no credentials.
func apiConfig(socket string) *rest.Config {
	return &rest.Config{Host: "http://api", QPS: -1, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
}
