package lb

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// asking is a request with one header and one text in its metadata.
type asking struct{ header, text string }

func (a asking) Header(name string) []byte {
	if name == "x-to" && a.header != "" {
		return []byte(a.header)
	}
	return nil
}

func (a asking) Metadata(namespace string, path []string) []byte {
	if namespace == "envoy.lb" && len(path) == 1 && path[0] == "to" && a.text != "" {
		return []byte(a.text)
	}
	return nil
}

func TestOverride(t *testing.T) {
	list := hosts(1, 1, 1)
	list[1].Unhealthy.Store(endpoint.FailedEDSHealth)
	b := NewOverride([]Source{{Namespace: "envoy.lb", Path: []string{"to"}}, {Header: "x-to"}}, New(Policy{}, Set{Endpoints: list[:1]}), list)
	for _, c := range []struct {
		name string
		r    Request
		want []string
	}{
		{"nothing is named", asking{}, []string{"10.0.0.1:80"}},
		{"who cannot say", nil, []string{"10.0.0.1:80"}},
		{"one, whatever its health", asking{header: "10.0.0.2:80"}, []string{"10.0.0.2:80", "10.0.0.1:80"}},
		{"one after the other", asking{header: "10.0.0.3:80, 10.0.0.2:80"}, []string{"10.0.0.3:80", "10.0.0.2:80", "10.0.0.1:80", "10.0.0.1:80"}},
		{"the same one again", asking{header: "10.0.0.3:80,10.0.0.3:80"}, []string{"10.0.0.3:80", "10.0.0.3:80", "10.0.0.1:80"}},
		{"those that are none are left out", asking{header: "junk,,10.9.9.9:80 ,10.0.0.3:80"}, []string{"10.0.0.3:80", "10.0.0.1:80"}},
		{"metadata come first", asking{header: "10.0.0.3:80", text: "10.0.0.2:80"}, []string{"10.0.0.2:80", "10.0.0.1:80"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &Context{Request: c.r}
			for i, want := range c.want {
				if e := b.Pick(x); e == nil || e.Address != want {
					t.Errorf("attempt %d: %v, want %s", i, e, want)
				}
			}
		})
	}
}
