package listener

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// bouncer is a filter that lets connections from all addresses through but one. It holds
// those that arrive until gate is closed.
type bouncer struct {
	last    byte // of the address, 0: none
	arrives chan<- struct{}
	gate    <-chan struct{}
}

func (b *bouncer) OnConnect(c *network.Conn) bool {
	b.arrives <- struct{}{}
	<-b.gate
	_, ok := b.Review(c.Info)
	return ok
}

func (b *bouncer) Review(i *streaminfo.Info) (string, bool) {
	ip := i.DownstreamRemote.Addr().As4()
	return "bounced", ip[3] != b.last
}

// reviewed is a fixture whose chains may have a bouncer, which holds who arrives until gate
// is closed.
func reviewed(t *testing.T, arrives chan<- struct{}, gate <-chan struct{}) *fixture {
	return newFixture(t, func(o *Options) {
		o.Network = append(o.Network, network.Factory{Name: "bouncer", TypeURLs: []string{"google.protobuf.UInt32Value"},
			New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
				var v wrapperspb.UInt32Value
				if err := cfg.UnmarshalTo(&v); err != nil {
					return network.Built{}, err
				}
				return network.Built{Filter: &bouncer{byte(v.GetValue()), arrives, gate}}, nil
			}})
	})
}

// bounced is a listener whose chain bounces an address, nobody without a bouncer.
func bounced(who ...int) string {
	chain := chainNamed("c", "hello", "")
	for _, n := range who {
		chain = strings.Replace(chain, `"filters": [`, fmt.Sprintf(`"filters": [{"name": "bouncer", "typed_config": {"@type": "type.googleapis.com/google.protobuf.UInt32Value", "value": %d}}, `, n), 1)
	}
	return address0("l", `"filter_chains": [`+chain+`]`)
}

func (f *fixture) dialFrom(from, addr string) client {
	f.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return client{c, f.t}
}

// TestReview: PO-018 a policy that comes cuts the connections that it names, and no others;
// one that goes, or changes, closes nothing that it allows.
func TestReview(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	f := reviewed(t, make(chan struct{}, 100), gate)
	addr := f.apply(nil, bounced())
	clients := map[int]client{}
	for n := 1; n <= 3; n++ {
		clients[n] = f.dialFrom(fmt.Sprintf("127.0.0.%d", n), addr)
		if got := clients[n].line(); got != "hello" {
			t.Fatal(got)
		}
	}
	for _, who := range [][]int{{2}, {9}, {9, 8}, {}, {3}} {
		f.apply(nil, bounced(who...))
		for _, n := range who {
			if c, ok := clients[n]; ok {
				if got := c.line(); got != "<end>" {
					t.Errorf("the one that %v names: %s", who, got)
				}
				delete(clients, n)
			}
		}
		for n, c := range clients {
			if got := c.say("still here\n").line(); got != "still here" {
				t.Errorf("after %v the one from %d: %s", who, n, got)
			}
		}
	}
}

// TestReviewOfArrivals: a policy that comes while a connection is let through by the one
// before holds for it, too.
func TestReviewOfArrivals(t *testing.T) {
	arrives, gate := make(chan struct{}), make(chan struct{})
	f := reviewed(t, arrives, gate)
	addr := f.apply(nil, bounced(9))
	c := f.dialFrom("127.0.0.2", addr)
	<-arrives
	f.apply(nil, bounced(2))
	close(gate)
	if got := strings.TrimPrefix(c.line(), "hello"); got != "<end>" && got != "" {
		t.Error(got)
	}
	if got := c.line(); got != "<end>" {
		t.Errorf("it goes on: %s", got)
	}
}
