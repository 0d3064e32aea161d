package rbac

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func build(t *testing.T, store *stats.Store, text string) (*filter, error) {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC",`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	b, err := Factory(store).New(&a, network.Env{})
	if err != nil {
		return nil, err
	}
	t.Cleanup(b.Close)
	return b.Filter.(*filter), nil
}

func conn(t *testing.T, f *filter, from string) (*network.Conn, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	c := &network.Conn{Conn: transport.NewConn(near), Info: &streaminfo.Info{DownstreamDirectRemote: netip.AddrPortFrom(netip.MustParseAddr(from), 1)}}
	if !f.OnConnect(c) {
		t.Fatal("ended before it has said anything")
	}
	return c, far
}

// say is what a client sends.
func say(far net.Conn, text string) { _, _ = io.WriteString(far, text) }

const seven = `"statPrefix":"s","rules":{"policies":{"seven":{"permissions":[{"any":true}],"principals":[{"directRemoteIp":{"addressPrefix":"127.0.0.7","prefixLen":32}}]}}}`

// TestFirstBytes: SX-016 bytes are read if the rules allow it, which are asked once.
func TestFirstBytes(t *testing.T) {
	for _, mode := range []string{"ONE_TIME_ON_FIRST_BYTE", "CONTINUOUS"} {
		store := stats.NewStore()
		f, err := build(t, store, seven+`,"enforcementType":"`+mode+`"`)
		if err != nil {
			t.Fatal(err)
		}
		c, far := conn(t, f, "127.0.0.7")
		go say(far, "ab")
		if got, err := io.ReadAll(io.LimitReader(byByte{c}, 2)); err != nil || string(got) != "ab" {
			t.Errorf("%s: %q, %v", mode, got, err)
		}
		asked := map[string]uint64{"ONE_TIME_ON_FIRST_BYTE": 1, "CONTINUOUS": 2}[mode]
		if n := store.Scope("s.rbac.").Counter("allowed").Value(); n != asked {
			t.Errorf("%s: asked %d times", mode, n)
		}
		c, far = conn(t, f, "127.0.0.8")
		go say(far, "a")
		for range 2 {
			if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, errDenied) {
				t.Errorf("%s: read %d bytes, %v", mode, n, err)
			}
		}
		if c.Info.TerminationDetails != "rbac_access_denied_matched_policy[none]" || c.Info.BytesReceived != 1 {
			t.Errorf("%s: %q after %d bytes", mode, c.Info.TerminationDetails, c.Info.BytesReceived)
		}
		if _, err := far.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s: the connection is open", mode)
		}
	}
}

// byByte reads one byte at a time.
type byByte struct{ io.Reader }

func (b byByte) Read(p []byte) (int, error) { return b.Reader.Read(p[:1]) }

// TestDelay: a connection that is denied is kept for the delay, or until its client has gone.
func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, err := build(t, stats.NewStore(), seven+`,"delayDeny":"3s"`)
		if err != nil {
			t.Fatal(err)
		}
		for _, leaves := range []bool{false, true} {
			c, far := conn(t, f, "127.0.0.8")
			go func() {
				_, _ = io.WriteString(far, "hello")
				if leaves {
					_ = far.Close()
				}
			}()
			begin := time.Now()
			if _, err := c.Read(make([]byte, 10)); !errors.Is(err, errDenied) {
				t.Error(err)
			}
			if d := time.Since(begin); d != 3*time.Second && !leaves || d != 0 && leaves {
				t.Errorf("the client leaves %v: held for %s", leaves, d)
			}
		}
	})
}

// TestShadow: what shadow rules say is told, and is without effect.
func TestShadow(t *testing.T) {
	f, err := build(t, stats.NewStore(), strings.Replace(seven, `"rules"`, `"shadowRulesStatPrefix":"x_","shadowRules"`, 1))
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{"127.0.0.7": "allowed", "127.0.0.8": "denied"} {
		c, far := conn(t, f, from)
		go say(far, "a")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
		if m := c.Info.Metadata[Name]; m["x_shadow_engine_result"] != want || (m["x_shadow_effective_policy_id"] == "seven") != (want == "allowed") {
			t.Errorf("%s: %v", from, m)
		}
	}
}

// TestReview: PO-018 rules that come later hold for connections that are there, and those by
// which they came are not asked any more.
func TestReview(t *testing.T) {
	store := stats.NewStore()
	f, err := build(t, store, seven)
	if err != nil {
		t.Fatal(err)
	}
	c, far := conn(t, f, "127.0.0.8")
	if details, ok := f.Review(c.Info); ok || details != "rbac_access_denied_matched_policy[none]" || store.Scope("s.rbac.").Counter("denied").Value() != 1 {
		t.Errorf("%q, allowed: %v", details, ok)
	}
	c.Approve()
	go say(far, "a")
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("approved: %v", err)
	}
	near, _ := conn(t, f, "127.0.0.7")
	if _, ok := f.Review(near.Info); !ok {
		t.Error("one that the rules allow is denied")
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`"rules":{}`:                           "stat_prefix: must not be empty",
		`"statPrefix":"s","matcher":{}`:        "matcher: not supported",
		`"statPrefix":"s","enforcementType":9`: "enforcement_type: 9: unknown",
		`"statPrefix":"s","rules":{"policies":{"p":{"permissions":[{"header":{"name":"a"}}]}}}`: `rules.policies["p"].permissions[0].header: Found header(a) rule, not supported by RBAC network filter`,
		`"statPrefix":"s","shadowRules":{"policies":{"p":{}}}`:                                  `shadow_rules.policies["p"].permissions: must not be empty`,
	} {
		if _, err := build(t, stats.NewStore(), text); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}
