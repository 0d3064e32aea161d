package agent

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lateen-mesh/lateen/agent/names"
	"github.com/lateen-mesh/lateen/agent/redirect"
	"github.com/lateen-mesh/lateen/wellknown"
)

// interception is what the flags of `pilot-agent istio-iptables` say.
type interception struct {
	outbound, inbound, tunnel               int
	uids, gids                              string
	mode                                    string
	inPorts, notInPorts                     string
	ranges, notRanges, outPorts, noOutPorts string
	notInterfaces, virtual                  string
	dns, allDNS, dropInvalid, dry, clean    bool
}

// newRedirectCommand is `pilot-agent istio-iptables`, with the flags of the original. What they mean
// is set by nftables: no program of iptables is needed.
func newRedirectCommand() *cobra.Command {
	var i interception
	cmd := &cobra.Command{
		Use: "istio-iptables", Short: "Redirect the traffic of this network namespace to its proxy", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if i.clean {
				return install(redirect.Rules{Mode: redirect.None})
			}
			rules, err := i.rules()
			if err != nil {
				return err
			}
			fmt.Fprint(cmd.OutOrStdout(), rules)
			if i.dry {
				return nil
			}
			return install(rules)
		},
	}
	set := cmd.Flags()
	set.IntVarP(&i.outbound, "envoy-port", "p", wellknown.OutboundPort, "port for outbound connections")
	set.IntVarP(&i.inbound, "inbound-capture-port", "z", wellknown.InboundPort, "port for inbound connections")
	set.IntVarP(&i.tunnel, "inbound-tunnel-port", "e", 15008, "port for inbound tunnels")
	set.StringVarP(&i.uids, "proxy-uid", "u", "1337", "users, with commas, who are the proxy")
	set.StringVarP(&i.gids, "proxy-gid", "g", "1337", "groups, with commas, who are the proxy")
	set.StringVarP(&i.mode, "istio-inbound-interception-mode", "m", "REDIRECT", "REDIRECT, TPROXY or NONE")
	set.StringVarP(&i.inPorts, "istio-inbound-ports", "b", "", "inbound ports that go to the proxy, or *")
	set.StringVarP(&i.notInPorts, "istio-local-exclude-ports", "d", "", "inbound ports that do not")
	set.StringVarP(&i.ranges, "istio-service-cidr", "i", "", "outbound ranges that go to the proxy, or *")
	set.StringVarP(&i.notRanges, "istio-service-exclude-cidr", "x", "", "outbound ranges that do not")
	set.StringVarP(&i.outPorts, "istio-outbound-ports", "q", "", "outbound ports that go to the proxy wherever they are")
	set.StringVarP(&i.noOutPorts, "istio-local-outbound-ports-exclude", "o", "", "outbound ports that do not")
	set.StringVarP(&i.notInterfaces, "istio-exclude-interfaces", "c", "", "interfaces that are left alone")
	set.StringVarP(&i.virtual, "kube-virt-interfaces", "k", "", "interfaces of virtual machines: what comes from them is outbound")
	set.BoolVar(&i.dns, "redirect-dns", getenv("ISTIO_META_DNS_CAPTURE") == "true", "DNS questions for the servers of resolv.conf go to the agent")
	set.BoolVar(&i.allDNS, "capture-all-dns", false, "all DNS questions do")
	set.BoolVar(&i.dropInvalid, "drop-invalid", getenv("INVALID_DROP") == "true", "drop packets that belong to no connection")
	set.BoolVarP(&i.dry, "dry-run", "n", false, "print the rules only")
	set.BoolVar(&i.clean, "cleanup-only", false, "remove the rules")
	accepted(cmd)
	return cmd
}

// accepted are flags of the original that choose among ways to the same rules.
func accepted(cmd *cobra.Command) {
	set := cmd.Flags()
	for _, name := range []string{"native-nftables", "restore-format", "skip-rule-apply", "run-validation", "force-apply", "iptables-trace-logging", "log_as_json"} {
		set.Bool(name, false, "accepted, no effect")
		_ = set.MarkHidden(name)
	}
	for _, name := range []string{"istio-inbound-tproxy-mark", "istio-inbound-tproxy-route-table", "iptables-probe-port", "probe-timeout", "network-namespace", "host-nsenter-exec",
		"log_output_level", "log_target", "log_caller", "log_stacktrace_level"} {
		short := map[string]string{"istio-inbound-tproxy-mark": "t", "istio-inbound-tproxy-route-table": "r"}[name]
		set.StringP(name, short, "", "accepted, no effect")
		_ = set.MarkHidden(name)
	}
}

// newCleanCommand is `pilot-agent istio-clean-iptables`.
func newCleanCommand() *cobra.Command {
	return &cobra.Command{
		Use: "istio-clean-iptables", Short: "Remove the redirection of this network namespace", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return install(redirect.Rules{Mode: redirect.None}) },
	}
}

func install(rules redirect.Rules) error {
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := redirect.Install(ns, rules); err != nil {
		return fmt.Errorf("%w (the rules need capability NET_ADMIN)", err)
	}
	return nil
}

func (i *interception) rules() (redirect.Rules, error) {
	if i.outbound != wellknown.OutboundPort || i.inbound != wellknown.InboundPort || i.tunnel != 15008 {
		return redirect.Rules{}, fmt.Errorf("ports %d, %d, %d: those of the proxy are %d (-p), %d (-z) and 15008 (-e)", i.outbound, i.inbound, i.tunnel, wellknown.OutboundPort, wellknown.InboundPort)
	}
	r := redirect.Sidecar()
	r.ExcludeInbound = nil // the flags say all of it
	const traffic = "traffic.sidecar.istio.io/"
	r, err := r.Annotated(map[string]string{
		"sidecar.istio.io/interceptionMode": i.mode,
		traffic + "includeInboundPorts":     i.inPorts, traffic + "excludeInboundPorts": i.notInPorts,
		traffic + "includeOutboundIPRanges": i.ranges, traffic + "excludeOutboundIPRanges": i.notRanges,
		traffic + "includeOutboundPorts": i.outPorts, traffic + "excludeOutboundPorts": i.noOutPorts,
		traffic + "excludeInterfaces": i.notInterfaces, traffic + "kubevirtInterfaces": i.virtual,
	})
	if err != nil {
		return r, err
	}
	if r.UIDs, err = ids("-u", i.uids); err != nil {
		return r, err
	}
	if r.GIDs, err = ids("-g", i.gids); err != nil {
		return r, err
	}
	r.DropInvalid, r.IPv6 = i.dropInvalid, hasIPv6()
	switch {
	case i.allDNS:
		r.DNS.All = true
	case i.dns:
		err = i.capture(&r)
	}
	return r, err
}

// capture has questions for the servers of resolv.conf go to the agent.
func (i *interception) capture(r *redirect.Rules) error {
	resolver, err := names.ReadResolver(resolvConf)
	if err != nil {
		return fmt.Errorf("--redirect-dns: %w", err)
	}
	for _, s := range resolver.Servers {
		r.DNS.Servers = append(r.DNS.Servers, s.Addr())
	}
	return nil
}

func ids(flag, text string) ([]uint32, error) {
	var all []uint32
	for word := range strings.SplitSeq(text, ",") {
		if word == "" {
			continue
		}
		n, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no number of a user or group", flag, word)
		}
		all = append(all, uint32(n))
	}
	return all, nil
}

// hasIPv6 reports whether this network namespace has an IPv6 address beyond the link.
func hasIPv6() bool {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is6() && p.Addr().IsGlobalUnicast() && !p.Addr().Is4In6() {
			return true
		}
	}
	return false
}
