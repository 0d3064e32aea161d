package streaminfo

import (
	"net/netip"
	"testing"
)

// TestInheritedState: a stream sees what its connection knows, and keeps to itself what it adds.
func TestInheritedState(t *testing.T) {
	var connection Info
	connection.SetState("a", "connection")
	first := connection
	first.Reset()
	first.SetState("a", "first")
	first.SetState("b", "first")
	second := connection
	second.Reset()
	if len(connection.FilterState) != 1 || second.FilterState["a"] != "connection" {
		t.Errorf("the connection has %v, its second stream %v", connection.FilterState, second.FilterState)
	}
	if first.FilterState["a"] != "first" || first.FilterState["b"] != "first" {
		t.Errorf("the first stream has %v", first.FilterState)
	}
}

// TestSource: the peer of a connection is whom the PROXY protocol names, for each stream anew.
func TestSource(t *testing.T) {
	socket, told, forwarded := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("192.0.2.1:2"), netip.MustParseAddrPort("203.0.113.1:0")
	i := Info{DownstreamDirectRemote: socket}
	if i.Source() != socket {
		t.Errorf("the source is %s, want the socket's peer", i.Source())
	}
	i.DownstreamTold, i.DownstreamRemote = told, forwarded
	i.Reset()
	if i.Source() != told || i.DownstreamRemote != told || i.DownstreamDirectRemote != socket {
		t.Errorf("source %s, remote %s, socket %s", i.Source(), i.DownstreamRemote, i.DownstreamDirectRemote)
	}
}
