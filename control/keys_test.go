package control_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

const guardedGate = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: istio-system}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: istio-system}
spec: {jwtRules: [{issuer: issuer.test, jwksUri: %q}]}
`

// TestKeys has the control plane fetch the keys of an issuer: proxies get them with their
// first listeners, and new ones when the issuer has new ones.
func TestKeys(t *testing.T) {
	var set atomic.Value
	set.Store(`{"keys":[{"kid":"first"}]}`)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, set.Load()) }))
	defer issuer.Close()
	t.Run("PO-007 EN-050 keys come with the first listeners and change by themselves", func(t *testing.T) {
		p := start(t, map[string]string{"a.yaml": fmt.Sprintf(guardedGate, issuer.URL)}, func(o *control.Options) { o.Tokens.Refresh = 50 * time.Millisecond })
		c := p.connect(wellknown.ListenerType, nil)
		if got := fmt.Sprint(c.next("")); !strings.Contains(got, "first") || !strings.Contains(got, "issuer.test") {
			t.Errorf("the first listeners: %s", got)
		}
		set.Store(`{"keys":[{"kid":"second"}]}`)
		c.until("second", true)
	})
	t.Run("PO-007 keys that are not there are told of", func(t *testing.T) {
		p := start(t, map[string]string{"a.yaml": fmt.Sprintf(guardedGate, issuer.URL+"/keys"), "b.yaml": strings.NewReplacer("name: tokens", "name: others", "issuer.test", "other.test").Replace(fmt.Sprintf(guardedGate[strings.Index(guardedGate, "---"):], "http://keys.invalid/"))}, nil)
		if got := fmt.Sprint(p.connect(wellknown.ListenerType, nil).next("")); !strings.Contains(got, "second") || !strings.Contains(got, "Ed25519") {
			t.Errorf("the first listeners: %s", got)
		}
		found := p.server.Status().Problems
		if len(found) != 1 || found[0].Field != "jwtRules[0].jwksUri" || !strings.Contains(found[0].Message, "none of its tokens is valid") || !strings.Contains(found[0].Object, "others") {
			t.Errorf("problems: %v", found)
		}
	})
}
