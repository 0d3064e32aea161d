package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lateen-mesh/lateen/local"
)

// A mesh has control planes that work with one authority, and a proxy of each.
type rotatingMesh struct {
	mu     sync.Mutex
	phase  string
	steps  []string
	behind map[string]string // by plane: the phase that it knows of, if it is an older one
	wrong  map[string]string // by phase: why the proxy of the first plane proves nothing
	pods   []string
}

var follows = map[string]string{settled: trusting, trusting: signing, signing: settled}

func (m *rotatingMesh) plane(name string) controlPlane {
	return controlPlane{name, func(_ context.Context, method, path string) ([]byte, error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		u, err := url.Parse(path)
		if err != nil {
			return nil, err
		}
		after := u.Query().Get("after")
		if method == http.MethodPost {
			delete(m.behind, name)
		}
		if after != "" {
			if after != m.phase {
				return nil, errors.New("in another phase")
			}
			m.phase = follows[after]
			m.steps = append(m.steps, after)
			m.behind["b"] = after
		}
		phase := m.phase
		if old := m.behind[name]; old != "" {
			phase = old
		}
		missing := ""
		if name == "a" {
			missing = m.wrong[phase]
		}
		roots := map[string]string{settled: `{"fingerprint":"first","signs":true}`, trusting: `{"fingerprint":"first","signs":true},{"fingerprint":"second"}`,
			signing: `{"fingerprint":"first"},{"fingerprint":"second","signs":true}`}[phase]
		pods, err := json.Marshal(m.pods)
		return []byte(`{"authority":{"phase":"` + phase + `","digest":"` + phase + `","roots":[` + roots + `]},"told":true,"pods":` + string(pods) + `,
			"proofs":[{"id":"` + name + `.default","missing":"` + missing + `"}]}`), err
	}}
}

func (m *rotatingMesh) rotate(timeout time.Duration) (string, error) {
	var out bytes.Buffer
	r := &rotation{out: &out, planes: func(context.Context) ([]controlPlane, bool, error) {
		return []controlPlane{m.plane("a"), m.plane("b")}, true, nil
	}}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	err := r.run(ctx)
	return out.String(), err
}

func TestRotate(t *testing.T) {
	const all = "settled trusting signing"
	for _, tt := range []struct {
		name, phase string
		wrong       map[string]string
		pods        []string
		steps       string
		want, err   string
	}{
		{"all prove it", settled, nil, []string{"a.default", "b.default"}, all, "2 of 2 proxies", ""},
		{"one that was stopped goes on", trusting, nil, nil, "trusting signing", "going on with the rotation", ""},
		{"one that was stopped before its end", signing, nil, nil, "signing", "going on with the rotation", ""},
		{"a proxy that does not trust the next root", settled, map[string]string{trusting: "it refuses ROOTCA"}, nil, "settled", "1 of 2 proxies", "a.default: it refuses ROOTCA"},
		{"a proxy that has no new certificate", settled, map[string]string{signing: "it leads to the old root"}, nil, "settled trusting", "1 of 2 proxies", "a.default: it leads to the old root"},
		{"a proxy that is not connected", settled, nil, []string{"c.default"}, "settled", "2 of 3 proxies", "c.default: it is connected to no control plane"},
	} {
		t.Run("SX-004 "+tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &rotatingMesh{phase: tt.phase, wrong: tt.wrong, pods: tt.pods, behind: map[string]string{}}
				out, err := m.rotate(10 * time.Second)
				if got := strings.Join(m.steps, " "); got != tt.steps {
					t.Errorf("steps after %s, want %s", got, tt.steps)
				}
				if !strings.Contains(out, tt.want) {
					t.Errorf("it says:\n%s", out)
				}
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("%v, want %q", err, tt.err)
				}
				if hinted, ok := errors.AsType[*local.Error](err); tt.err != "" && (!ok || !strings.Contains(hinted.Hint, "no root was taken away")) {
					t.Errorf("hint of %v", err)
				}
			})
		})
	}
}

func TestAuthorityStatus(t *testing.T) {
	m := &rotatingMesh{phase: trusting, wrong: map[string]string{trusting: "it waits for ROOTCA"}, behind: map[string]string{}}
	var out bytes.Buffer
	r := &rotation{out: &out, planes: func(context.Context) ([]controlPlane, bool, error) { return []controlPlane{m.plane("a")}, true, nil }}
	now, err := r.look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := now.print(&out); err != nil {
		t.Fatal(err)
	}
	want := `ROOT     UNTIL        USE
first    0001-01-01   signs
second   0001-01-01   is trusted
A rotation of the root is in phase "trusting"; lateen ca rotate goes on with it.
0 of 1 proxies have proved that they trust these roots and have a certificate of the one that signs.
  a.default: it waits for ROOTCA
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}
