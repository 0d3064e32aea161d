package control_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/wellknown"
)

// waiting calls Wait and hands over what it returns.
func (p *plane) waiting(ctx context.Context, generation uint64) <-chan control.Delivery {
	done := make(chan control.Delivery, 1)
	go func() {
		d, _ := p.server.Wait(ctx, generation, "")
		done <- d
	}()
	return done
}

func TestWait(t *testing.T) {
	slow := func(o *control.Options) { // whoever waits does not wait for the end of a burst
		o.Debounce = control.Debounce{After: time.Hour, Max: time.Hour}
	}
	files := map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}
	t.Run("nobody to wait for", func(t *testing.T) {
		p := start(t, files, slow)
		if d := <-p.waiting(t.Context(), 0); !d.Done() || d.Generation != 1 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("what was written before is delivered, without debounce", func(t *testing.T) {
		p := start(t, files, slow)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		has(t, "the first", text(t, c.next("")), `"one"`)
		p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
		done := p.waiting(t.Context(), 0)
		has(t, "the second", text(t, c.next("")), `"two"`)
		if d := <-done; !d.Done() || d.Generation != 2 || d.Proxies != 1 {
			t.Errorf("%+v", d)
		}
		if d := <-p.waiting(t.Context(), 0); !d.Done() || d.Generation != 2 {
			t.Errorf("nothing has changed since: %+v", d)
		}
	})
	t.Run("a refusal ends it at once, and names proxy and object", func(t *testing.T) {
		p := start(t, files, slow)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		c.next("")
		p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
		done := p.waiting(t.Context(), 0)
		c.next("not this one")
		want := control.Delivery{Generation: 2, Newest: 2, Proxies: 1,
			Late: []control.LateProxy{{ID: "gw.istio-system", Generation: 1, Types: []string{"RDS"}}},
			Refused: []control.ProxyRefusal{{ID: "gw.istio-system", Refusal: control.Refusal{Type: "RDS", Resource: "http.80", Error: "not this one"},
				Objects: []string{"VirtualService default/web"}}}}
		if diff := cmp.Diff(want, <-done); diff != "" {
			t.Error(diff)
		}
		p.write("routes.yaml", strings.Replace(routes, "one", "three", 1))
		done = p.waiting(t.Context(), 0)
		c.next("")
		if d := <-done; !d.Done() {
			t.Errorf("after it was mended: %+v", d)
		}
	})
	t.Run("also one that is over at once, since what was refused is left out", func(t *testing.T) {
		p := start(t, files, slow)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		c.next("")
		p.write("filter.yaml", `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: odd, namespace: istio-system}
spec:
  configPatches:
  - applyTo: ROUTE_CONFIGURATION
    match: {context: GATEWAY}
    patch: {operation: MERGE, value: {internal_only_headers: [x-odd]}}
`)
		done := p.waiting(t.Context(), 0)
		c.next("route http.80: x-odd is not liked")
		if d := <-done; d.Done() || len(d.Refused) != 1 || d.Refused[0].Resource != "http.80" {
			t.Errorf("%+v", d)
		}
	})
	t.Run("who is late is named when the time is over", func(t *testing.T) {
		p := start(t, files, nil)
		p.connect(wellknown.RouteType, nil, "http.80").next("")
		ctx, cancel := context.WithCancel(t.Context())
		done := p.waiting(ctx, 7)
		cancel()
		if d := <-done; d.Done() || len(d.Late) != 1 || d.Late[0].ID != "gw.istio-system" || d.Newest != 1 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("a type that the server does not have holds up nobody", func(t *testing.T) {
		p := start(t, files, slow)
		p.connect("type.googleapis.com/of.Nothing", nil, "x").next("")
		p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
		if d := <-p.waiting(t.Context(), 0); !d.Done() || d.Generation != 2 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("the page", func(t *testing.T) {
		p := start(t, files, slow)
		for query, want := range map[string]string{"": `"generation":1,"newest":1,"proxies":0`, "generation=9&timeout=1ms": `"generation":9,"newest":1`,
			"generation=x": "invalid syntax", "timeout=1": "missing unit"} {
			_, body := p.get("/debug/wait?" + query)
			var b strings.Builder
			var v any
			if json.Unmarshal([]byte(body), &v) != nil {
				has(t, query, body, want)
				continue
			}
			if err := json.NewEncoder(&b).Encode(v); err != nil {
				t.Fatal(err)
			}
			has(t, query, b.String(), want)
		}
	})
}

func TestWaitForAnObject(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway}, func(o *control.Options) {
		o.Debounce = control.Debounce{After: time.Hour, Max: time.Hour}
	})
	c := p.connect(wellknown.RouteType, nil, "http.80")
	c.next("")
	web := config.Key{Kind: config.VirtualService, Namespace: "default", Name: "web"}
	waiting := func(ctx context.Context, gone bool) <-chan control.Delivery {
		done := make(chan control.Delivery, 1)
		go func() {
			d, _ := p.server.WaitObject(ctx, control.Expectation{Key: web, Gone: gone}, "")
			done <- d
		}()
		return done
	}
	never, cancel := context.WithCancel(t.Context())
	cancel()
	if d := <-waiting(never, false); d.Done() || !d.Unread {
		t.Errorf("it is not there: %+v", d)
	}
	done := waiting(t.Context(), false)
	p.write("routes.yaml", routes)
	has(t, "its routes", text(t, c.next("")), `"one"`)
	if d := <-done; !d.Done() || d.Generation != 2 {
		t.Errorf("delivered: %+v", d)
	}
	done = waiting(t.Context(), true)
	p.write("routes.yaml", "")
	c.next("")
	if d := <-done; !d.Done() || d.Generation != 3 {
		t.Errorf("deleted: %+v", d)
	}
	if _, body := p.get("/debug/wait?object=VirtualService/default/web&gone=true"); !strings.Contains(body, `"generation": 3`) {
		t.Errorf("page: %s", body)
	}
	if code, body := p.get("/debug/wait?object=web"); code != 400 {
		t.Errorf("page: %d %s", code, body)
	}
}

func TestWaitForAnObjectOfAnAPI(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply(gateway + "---" + routes)
	p := startOn(t, api, nil, nil)
	web := control.Expectation{Key: config.Key{Kind: config.VirtualService, Namespace: "default", Name: "web"}}
	d, err := p.server.WaitObject(t.Context(), web, "")
	if err != nil || !d.Done() {
		t.Errorf("%+v: %v", d, err)
	}
	later, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	newer := web
	newer.Version = "999999999"
	if d, err := p.server.WaitObject(later, newer, ""); err == nil || d.Done() || !d.Unread {
		t.Errorf("a version that was not read: %+v: %v", d, err)
	}
	api.Apply(strings.Replace(routes, "status: 200", "status: 2000", 1))
	broken := func() bool { _, err := p.server.WaitObject(t.Context(), web, ""); return err != nil }
	wait(t, broken)
	api.Delete("VirtualService", "default/web")
	web.Gone = true
	if d, err := p.server.WaitObject(t.Context(), web, ""); err != nil || !d.Done() {
		t.Errorf("deleted: %+v: %v", d, err)
	}
	_, page := p.get("/metrics")
	for _, want := range []string{`pilot_k8s_cfg_events{event="add",type="VirtualService"} 1`, `pilot_k8s_cfg_events{event="update",type="VirtualService"} 1`,
		`pilot_k8s_cfg_events{event="delete",type="VirtualService"} 1`} {
		has(t, "OB-046 /metrics", page, want)
	}
}
