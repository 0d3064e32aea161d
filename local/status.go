package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/local/apply"
)

// answerTime bounds each question to a part of a mesh.
const answerTime = 5 * time.Second

// A Status is a running mesh.
type Status struct {
	State  string `json:"state"` // directory
	PID    int    `json:"pid"`   // of the supervisor
	Parts  []Part `json:"parts"`
	Pods   []Pod  `json:"pods,omitempty"`
	NoPods string `json:"noPods,omitempty"` // why pods cannot run on this machine
	// Kubeconfig is the file that says how to reach the Kubernetes API, "" where there is none.
	Kubeconfig string `json:"kubeconfig,omitempty"`
	// Objects, Files and Problems are those of files that are applied to the API.
	Objects   int              `json:"objects,omitempty"`
	Files     int              `json:"files,omitempty"`
	Problems  []config.Problem `json:"problems,omitempty"`
	Published map[int]int      `json:"published,omitempty"` // port of a pod → port of this machine
	Control   *control.Status  `json:"mesh,omitempty"`      // nil while the control plane does not answer
	Problem   string           `json:"error,omitempty"`     // why it does not
}

// Refused reports that a gateway refuses the listener of one of its ports, so that
// nothing is served there.
func Refused(p control.ProxyStatus, port uint32) bool {
	return slices.ContainsFunc(p.Refused, func(r control.Refusal) bool {
		return r.Type == "LDS" && strings.HasSuffix(r.Resource, fmt.Sprintf("_%d", port))
	})
}

// useless is why a mesh can serve nothing: its gateway refuses every listener that a
// Gateway asks for. Nil while one is served, or none is asked for.
func useless(st Status) error {
	var why []string
	for _, p := range st.Control.Proxies {
		for _, l := range p.Listeners {
			if len(l.Objects) > 0 && !Refused(p, l.Port) {
				return nil
			}
		}
		for _, r := range p.Refused {
			if r.Type != "LDS" {
				continue
			}
			why = append(why, fmt.Sprintf("%s %s: %s", r.Type, r.Resource, r.Error))
		}
	}
	if len(why) == 0 {
		return nil
	}
	return &Error{errors.New("the gateway can serve nothing, it refuses " + strings.Join(why, "; ")), "other ports of this machine: lateen up --publish PORT=HOSTPORT"}
}

// ReadStatus asks the mesh of a state directory. While the control plane does not
// answer, the Status without it comes with the error.
func ReadStatus(ctx context.Context, dir string) (Status, error) {
	st, err := ReadRecord(dir)
	if err != nil {
		return st, err
	}
	if st.PID == 0 {
		return st, notRunning(dir)
	}
	st.Pods = podsOf(ctx, dir)
	st.Control, err = controlStatus(ctx, dir)
	if err != nil {
		st.Problem = err.Error()
		return st, fmt.Errorf("the control plane does not answer: %w", err)
	}
	locate(st.Control, dir)
	if !st.Control.Ready {
		return st, errors.New("the control plane has not read its configuration yet")
	}
	return st, nil
}

// podsOf are the pods of a state directory: none while the API is away, which its part shows.
func podsOf(ctx context.Context, dir string) []Pod {
	socket, err := socketOf(dir, "api.sock")
	if err != nil {
		return nil
	}
	config := apiConfig(socket)
	config.Timeout = answerTime
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil
	}
	pods, _ := listPods(ctx, client)
	return pods
}

// appliedName is the file in which the state directory remembers what came from files.
const appliedName = "applied.json"

// locate gives the problems of objects that the API has from files their places.
func locate(st *control.Status, dir string) {
	if st.Kubernetes == nil || !slices.ContainsFunc(st.Problems, unplaced) {
		return
	}
	places := apply.ReadPlaces(filepath.Join(dir, appliedName))
	for i, p := range st.Problems {
		if unplaced(p) {
			st.Problems[i].Place = places.Of(p.Object, p.Field)
		}
	}
}

func unplaced(p control.Problem) bool { return p.Place == "" && p.Object != "" }

// ReadRecord is what the supervisor of a state directory has written down, without
// asking any part. PID is 0 where none runs.
func ReadRecord(dir string) (Status, error) {
	st := Status{State: dir}
	pid, err := running(dir)
	if err != nil || pid == 0 {
		return st, err
	}
	st.PID = pid
	var r record
	if text, err := os.ReadFile(filepath.Join(dir, recordName)); err == nil && json.Unmarshal(text, &r) == nil { // replaced whole, so never half
		st.Parts, st.NoPods, st.Objects, st.Files, st.Problems, st.Published = r.Parts, r.NoPods, r.Objects, r.Files, r.Problems, r.Published
	}
	if _, err := os.Stat(kubeconfigPath(dir)); err == nil {
		st.Kubeconfig = kubeconfigPath(dir)
	}
	return st, nil
}

// kubeconfigPath is where the API of a state directory writes how to reach it.
func kubeconfigPath(dir string) string { return filepath.Join(dir, "kubeconfig") }

// socketOf finds a socket of a running mesh.
func socketOf(dir, name string) (string, error) {
	sockets, err := os.ReadFile(filepath.Join(dir, socketsName))
	if err != nil {
		return "", err
	}
	path := filepath.Join(strings.TrimSpace(string(sockets)), name)
	_, err = os.Stat(path) //nolint:gosec // what the supervisor has written down
	return path, err
}

func controlStatus(ctx context.Context, dir string) (*control.Status, error) {
	reply, err := askControl(ctx, dir, "/debug/status")
	if err != nil {
		return nil, err
	}
	defer reply.Close()
	var st control.Status
	if err := json.NewDecoder(io.LimitReader(reply, 64<<20)).Decode(&st); err != nil {
		return nil, err
	}
	return &st, nil
}

// controlReady is nil once the control plane can do all that it is for.
func controlReady(ctx context.Context, dir string) error {
	reply, err := askControl(ctx, dir, "/ready")
	if err == nil {
		err = reply.Close()
	}
	return err
}

// askControl gets a page of the control plane. The caller closes it.
func askControl(ctx context.Context, dir, page string) (io.ReadCloser, error) {
	return callControl(ctx, dir, http.MethodGet, page)
}

func callControl(ctx context.Context, dir, method, page string) (io.ReadCloser, error) {
	path, err := socketOf(dir, controlSocket)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Timeout: answerTime, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		},
	}}
	r, err := http.NewRequestWithContext(ctx, method, "http://control"+page, nil)
	if err != nil {
		return nil, err
	}
	reply, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode != http.StatusOK {
		defer reply.Body.Close()
		why, _ := io.ReadAll(io.LimitReader(reply.Body, 1<<10))
		return nil, fmt.Errorf("%s: %s", reply.Status, strings.TrimSpace(string(why)))
	}
	return reply.Body, nil
}

// Down ends the mesh of a state directory and waits until it is gone. What a killed one
// left behind is removed too.
func Down(ctx context.Context, dir string) error {
	pid, err := running(dir)
	if err != nil {
		return err
	}
	if pid == 0 {
		if _, err := os.Stat(filepath.Join(dir, socketsName)); err == nil {
			s, err := openState(dir)
			if err == nil {
				s.close()
			}
			return err
		}
		return notRunning(dir)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	if err := gone(ctx, dir, 2*endTime); err == nil {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return gone(ctx, dir, endTime)
}

// gone waits until nobody holds the state directory.
func gone(ctx context.Context, dir string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		pid, err := running(dir)
		if err != nil || pid == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d does not end", pid)
		case <-poll.C:
		}
	}
}
