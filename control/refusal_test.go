package control_test

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

// script is a patch with a setting that only the filter itself understands.
const script = `{applyTo: HTTP_FILTER, match: {context: GATEWAY}, patch: {operation: INSERT_FIRST, value: {name: script, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua, default_source_code: {inline_string: "function ((("}}}}}`

// refuse answers as a proxy that does not take a part of a listener.
func refuse(t *testing.T, c *proxy, why string) string {
	t.Helper()
	m := c.next("Error adding/updating listener(s) 0.0.0.0_80: " + why + "\n")
	return text(t, m)
}

// problem is the one of an object.
func problem(p *plane, object string) (found control.Problem) {
	for _, pr := range p.server.Status().Problems {
		if pr.Object == object {
			found = pr
		}
	}
	return found
}

func TestRefusedPatches(t *testing.T) {
	files := map[string]string{"gateway.yaml": gateway, "routes.yaml": routes,
		"bad.yaml": envoyFilter("bad", script), "good.yaml": envoyFilter("good", firstBuffer)}
	p := start(t, files, nil)
	c := p.connect(wellknown.ListenerType, nil)
	has(t, "LDS", refuse(t, c, `script load error: [string "function ((("]:1: '<name>' expected near '('`), `"name":"script"`)
	t.Run("what a proxy refuses is sent again without the patch that it complains of, all others have effect", func(t *testing.T) {
		got := text(t, c.next(""))
		has(t, "LDS", got, `"name":"buffer"`)
		if strings.Contains(got, `"name":"script"`) {
			t.Errorf("the patch is there: %s", got)
		}
	})
	t.Run("status and log name its object, with the proxy's words", func(t *testing.T) {
		wait(t, func() bool {
			return strings.Contains(p.log.String(), "EnvoyFilter istio-system/bad: configPatches[0]: left out")
		})
		got := problem(p, "EnvoyFilter istio-system/bad")
		has(t, "problem", got.Place+" "+got.Message, "bad.yaml:2 left out of what proxies like gw.istio-system get, which refused it in 0.0.0.0_80: script load error")
		if other := problem(p, "EnvoyFilter istio-system/good"); other.Message != "" {
			t.Errorf("the other one is named too: %s", other)
		}
	})
	t.Run("another proxy like it never sees the patch", func(t *testing.T) {
		if got := text(t, p.connect(wellknown.ListenerType, nil).next("")); strings.Contains(got, `"name":"script"`) {
			t.Errorf("the patch is there: %s", got)
		}
	})
	t.Run("it has another chance when its object is changed, and is not named any more", func(t *testing.T) {
		p.write("bad.yaml", envoyFilter("bad", strings.Replace(script, "function (((", "x = 1", 1)))
		has(t, "LDS", text(t, c.next("")), "x = 1")
		wait(t, func() bool { return problem(p, "EnvoyFilter istio-system/bad").Message == "" })
	})
	t.Run("where the proxy's words say nothing, all patches of what it refused are left out", func(t *testing.T) {
		p.write("bad.yaml", envoyFilter("bad", script))
		refuse(t, c, "no")
		if got := text(t, c.next("")); strings.Contains(got, `"name":"script"`) || strings.Contains(got, `"name":"buffer"`) {
			t.Errorf("a patch is there: %s", got)
		}
	})
}

// A server of a Gateway whose files are not there costs the others of its port nothing.
func TestRefusedServer(t *testing.T) {
	const servers = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: files, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 80, name: good, protocol: HTTPS}, hosts: [good.test], tls: {mode: SIMPLE, credentialName: good}}
  - {port: {number: 80, name: bad, protocol: HTTPS}, hosts: [bad.test], tls: {mode: SIMPLE, serverCertificate: /nowhere/a.crt, privateKey: /nowhere/a.key}}
`
	p := start(t, map[string]string{"gateway.yaml": servers}, nil)
	c := p.connect(wellknown.ListenerType, nil)
	has(t, "LDS", refuse(t, c, "Failed to load incomplete private key from path: /nowhere/a.key"), "/nowhere/a.key")
	got := text(t, c.next(""))
	has(t, "LDS", got, "good.test")
	if strings.Contains(got, "bad.test") {
		t.Errorf("the server is there: %s", got)
	}
	wait(t, func() bool { return strings.Contains(problem(p, "Gateway default/files").Field, "servers[1]") })
}
