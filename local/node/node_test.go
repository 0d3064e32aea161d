package node

import (
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/local/network"
)

func TestNetworkOptions(t *testing.T) {
	for name, c := range map[string]struct {
		node    Options
		want    network.Options
		refused string
	}{
		"nothing":                 {},
		"a kernel without TPROXY": {node: Options{NoUDP: true}, want: network.Options{NoUDP: true}},
		"sockets of proxies":      {node: Options{Sockets: "/s/mesh"}, want: network.Options{Door: "/s/mesh/outside.sock"}},
		"the API outside":         {node: Options{APIAddress: "127.0.0.1:6443"}, want: network.Options{API: netip.MustParseAddrPort("127.0.0.1:6443")}},
		"no address":              {node: Options{APIAddress: "localhost"}, refused: "--api-address: "},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := networkOptions(c.node)
			if c.refused != "" {
				if err == nil || !strings.HasPrefix(err.Error(), c.refused) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestImages(t *testing.T) {
	got, err := parseImages([]string{"my/app:v1=/bin/app --flag=x", "other=oci:/images/other"})
	if want := map[string]string{"my/app:v1": "/bin/app --flag=x", "other": "oci:/images/other"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseImages([]string{"my/app"}); err == nil || err.Error() != "--image my/app: must be IMAGE=COMMAND" {
		t.Errorf("error %v", err)
	}
}

// A node is nothing to start by hand: outside the namespaces that are made for it, it ends.
func TestByHand(t *testing.T) {
	cmd := Command()
	cmd.SetArgs([]string{"--state", t.TempDir()})
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), "started by lateen") {
		t.Errorf("error %v", err)
	}
}
