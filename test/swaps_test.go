package test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/fixture"
)

const swappedMesh = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: site}
spec:
  hosts: [a.backend]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %d}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: swapped, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: swapped}
    hosts: [swapped.site]
  - port: {number: 443, name: still, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: still}
    hosts: [still.site]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: site}
spec:
  hosts: ["*"]
  gateways: [gw]
  http:
  - route: [{destination: {host: a.backend}}]
---
apiVersion: v1
kind: Secret
metadata: {name: still, namespace: istio-system}
stringData: ${certificate still.site}
`

// swappedSecret has the name of its certificate's round before that of the site.
func swappedSecret(data string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata: {name: swapped, namespace: istio-system}\nstringData: " + data + "\n"
}

const swaps = 20

// TestSwappedSecrets keeps a load and a download on gateways while the Secret of one server
// is replaced, now and then by one that is no good.
func TestSwappedSecrets(t *testing.T) {
	if testing.Short() {
		t.Skip("a load while Secrets are replaced: not in short runs")
	}
	peers := []fixture.Peer{ours(t)}
	if envoy := fixture.EnvoyPath(); envoy != "" {
		peers = append(peers, fixture.Peer{Name: "envoy", Argv: []string{envoy}})
	}
	ticks := map[string]chan string{}
	for _, p := range peers {
		ticks["/"+p.Name] = make(chan string)
	}
	backend := httptest.NewServer(downloads(ticks))
	defer backend.Close()
	m := fixture.NewMesh(t, &fixture.Case{Name: "swaps", Config: map[string]string{
		"mesh.yaml": fmt.Sprintf(swappedMesh, backend.Listener.Addr().(*net.TCPAddr).Port),
		"swap.yaml": swappedSecret("${certificate round0.test,swapped.site}"),
	}}, programs(t), peers)

	closeTicks := sync.OnceFunc(func() {
		for _, c := range ticks {
			close(c)
		}
	})
	defer closeTicks() // before the server, which waits for its handlers

	var visits []*secureVisitor
	var files []*bufio.Scanner
	for _, g := range m.Gateways {
		v := &secureVisitor{t: t, name: g.Name, tls: tls.Config{RootCAs: m.CA.Pool(), MinVersion: tls.VersionTLS12}, addr: g.Addr(443)}
		v.start()
		defer v.stop()
		visits = append(visits, v)
		files = append(files, v.download())
	}
	t.Run("GW-014 SX-009 WI-030 a Secret is replaced 20 times under load: no request fails, no download ends", func(t *testing.T) {
		var slowest time.Duration
		for round := 1; round <= swaps; round++ {
			if round%5 == 0 { // the good one stays
				m.Put("swap.yaml", swappedSecret("{tls.crt: nonsense, tls.key: nonsense}"))
				round := fmt.Sprintf("round%d.test", round-1)
				for _, v := range visits {
					if got := v.shown("swapped.site"); got != round {
						t.Errorf("%s shows %s where the Secret is no good, want %s", v.name, got, round)
					}
				}
				continue
			}
			want, began := fmt.Sprintf("round%d.test", round), time.Now()
			m.Put("swap.yaml", swappedSecret("${certificate "+want+",swapped.site}"))
			for _, v := range visits {
				fixture.Eventually(t, v.name+" shows "+want, func() error {
					if got := v.shown("swapped.site"); got != want {
						return fmt.Errorf("still %s", got)
					}
					return nil
				})
			}
			slowest = max(slowest, time.Since(began))
			for i, v := range visits {
				ticks["/"+v.name] <- want
				if !files[i].Scan() || files[i].Text() != want {
					t.Fatalf("%s: the download ended: %q %v", v.name, files[i].Text(), files[i].Err())
				}
			}
		}
		t.Logf("the slowest of %d was with both gateways after %v", swaps, slowest)
	})
	closeTicks()
	for i, v := range visits {
		if files[i].Scan() || files[i].Err() != nil {
			t.Errorf("%s: the download did not end as it should: %q %v", v.name, files[i].Text(), files[i].Err())
		}
		v.stop()
		if n := v.served.Load(); n < swaps {
			t.Errorf("%s: %d requests are no load", v.name, n)
		}
		t.Logf("%s: %d requests", v.name, v.served.Load())
	}
}

// downloads answers a path that there are lines for with these as they come, until there are
// no more, and all else at once.
func downloads(lines map[string]chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if lines[r.URL.Path] == nil {
			return
		}
		w.(http.Flusher).Flush()
		for line := range lines[r.URL.Path] {
			_, _ = io.WriteString(w, line+"\n")
			w.(http.Flusher).Flush()
		}
	}
}

// A secureVisitor asks a gateway again and again, in several ways.
type secureVisitor struct {
	t          *testing.T
	name, addr string
	tls        tls.Config
	served     atomic.Int64
	cancel     context.CancelFunc
	wg         sync.WaitGroup
}

func (v *secureVisitor) client(kept, http2 bool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: v.tls.Clone(), ForceAttemptHTTP2: http2, DisableKeepAlives: !kept,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, v.addr)
		},
	}}
}

func (v *secureVisitor) start() {
	var ctx context.Context
	ctx, v.cancel = context.WithCancel(context.Background())
	for _, host := range []string{"swapped.site", "still.site"} {
		for _, c := range []*http.Client{v.client(false, false), v.client(true, false), v.client(true, true)} {
			v.wg.Go(func() {
				for ctx.Err() == nil {
					v.visit(c, "https://"+host+"/")
				}
				c.CloseIdleConnections()
			})
		}
	}
}

func (v *secureVisitor) visit(c *http.Client, url string) {
	r, err := c.Get(url)
	if err != nil {
		v.t.Errorf("%s: %v", v.name, err)
		v.cancel()
		return
	}
	_, _ = io.Copy(io.Discard, r.Body)
	_ = r.Body.Close()
	if r.StatusCode != http.StatusOK {
		v.t.Errorf("%s: %s", v.name, r.Status)
	}
	v.served.Add(1)
}

func (v *secureVisitor) stop() {
	v.cancel()
	v.wg.Wait()
}

// download begins one that lasts.
func (v *secureVisitor) download() *bufio.Scanner {
	r, err := v.client(true, false).Get("https://swapped.site/" + v.name)
	if err != nil {
		v.t.Fatalf("%s: %v", v.name, err)
	}
	v.t.Cleanup(func() { _ = r.Body.Close() })
	return bufio.NewScanner(r.Body)
}

// shown is the first name in the certificate that a new connection gets.
func (v *secureVisitor) shown(host string) string {
	config := v.tls.Clone()
	config.ServerName = host
	conn, err := tls.Dial("tcp", v.addr, config)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].DNSNames[0]
}
