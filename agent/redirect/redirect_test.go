package redirect

import (
	"net/netip"
	"strings"
	"testing"
)

// An outcome is what becomes of new TCP connections (or of a question) of a pod.
type outcome struct {
	what packet
	want string // nat decision, "" for none
}

func connection(to string, change ...func(*packet)) packet {
	at := netip.MustParseAddrPort(to)
	p := packet{hook: "output", oif: "eth0", proto: 6, src: netip.MustParseAddr("10.244.0.5"), dst: at.Addr(), sport: 40000, dport: uint32(at.Port()),
		uid: 1000, gid: 1000, state: 8, six: at.Addr().Is6()}
	for _, c := range change {
		c(&p)
	}
	return p
}

func comingIn(p *packet) { p.hook, p.oif, p.iif = "prerouting", "", "eth0" }
func byProxy(p *packet)  { p.uid, p.gid = ProxyID, ProxyID }
func byMark(p *packet)   { p.mark = ProxyID }
func viaLo(p *packet)    { p.oif = "lo" }
func question(p *packet) { p.proto = 17 }
func lastStep(p *packet) { p.src, p.oif = netip.MustParseAddr("127.0.0.6"), "lo" }
func from(name string) func(*packet) {
	return func(p *packet) { comingIn(p); p.iif = name }
}

func TestAnnotations(t *testing.T) {
	type set map[string]string
	for _, c := range []struct {
		name        string
		annotations set
		outcomes    []outcome
	}{
		{"none", nil, []outcome{
			{connection("93.184.216.34:443"), "15001"},
			{connection("10.244.0.9:80"), "15001"},
			{connection("93.184.216.34:443", byProxy), ""},
			{connection("93.184.216.34:443", byMark), ""},
			{connection("127.0.0.1:80", viaLo), ""},
			{connection("10.244.0.5:80", viaLo), ""},               // the pod to itself, without a Service
			{connection("10.244.0.5:80", viaLo, byProxy), "15006"}, // with one
			{connection("10.244.0.5:80", viaLo, byMark), "15006"},
			{connection("127.0.0.1:15000", viaLo, byProxy), ""},
			{connection("10.244.0.5:80", lastStep, byProxy), ""},
			{connection("10.244.0.5:80", comingIn), "15006"},
			{connection("10.244.0.5:15008", comingIn), ""},
			{connection("10.244.0.5:15020", comingIn), ""},
			{connection("10.244.0.5:15021", comingIn), ""},
			{connection("10.244.0.5:15090", comingIn), ""},
			{connection("10.96.0.10:53", question), ""},
			{connection("10.96.0.10:53"), "15001"},
		}},
		{"AN-017 includeOutboundIPRanges", set{"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.96.0.0/16, 10.244.0.0/16"}, []outcome{
			{connection("10.96.0.1:443"), "15001"}, {connection("10.244.0.9:80"), "15001"}, {connection("93.184.216.34:443"), ""},
		}},
		{"AN-017 includeOutboundIPRanges empty", set{"traffic.sidecar.istio.io/includeOutboundIPRanges": ""}, []outcome{
			{connection("10.96.0.1:443"), ""}, {connection("93.184.216.34:443"), ""}, {connection("10.244.0.5:80", comingIn), "15006"},
		}},
		{"AN-017 excludeOutboundIPRanges", set{"traffic.sidecar.istio.io/excludeOutboundIPRanges": "93.184.0.0/16,192.0.2.7"}, []outcome{
			{connection("93.184.216.34:443"), ""}, {connection("192.0.2.7:443"), ""}, {connection("192.0.2.8:443"), "15001"},
		}},
		{"AN-018 includeInboundPorts", set{"traffic.sidecar.istio.io/includeInboundPorts": "80,8080"}, []outcome{
			{connection("10.244.0.5:80", comingIn), "15006"}, {connection("10.244.0.5:8080", comingIn), "15006"}, {connection("10.244.0.5:81", comingIn), ""},
		}},
		{"AN-018 includeInboundPorts empty", set{"traffic.sidecar.istio.io/includeInboundPorts": ""}, []outcome{
			{connection("10.244.0.5:80", comingIn), ""}, {connection("93.184.216.34:443"), "15001"},
		}},
		{"AN-018 excludeInboundPorts", set{"traffic.sidecar.istio.io/excludeInboundPorts": "22,"}, []outcome{
			{connection("10.244.0.5:22", comingIn), ""}, {connection("10.244.0.5:15090", comingIn), ""}, {connection("10.244.0.5:80", comingIn), "15006"},
		}},
		{"AN-019 includeOutboundPorts", set{"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.96.0.0/16", "traffic.sidecar.istio.io/includeOutboundPorts": "3306"}, []outcome{
			{connection("93.184.216.34:3306"), "15001"}, {connection("93.184.216.34:443"), ""},
		}},
		{"AN-019 excludeOutboundPorts", set{"traffic.sidecar.istio.io/excludeOutboundPorts": "3306"}, []outcome{
			{connection("93.184.216.34:3306"), ""}, {connection("93.184.216.34:443"), "15001"},
			{connection("10.244.0.5:3306", viaLo, byProxy), ""},
		}},
		{"AN-020 excludeInterfaces", set{"traffic.sidecar.istio.io/excludeInterfaces": "net1"}, []outcome{
			{connection("10.244.0.5:80", from("net1")), ""}, {connection("10.244.0.5:80", from("eth0")), "15006"},
		}},
		{"AN-020 kubevirtInterfaces", set{"traffic.sidecar.istio.io/kubevirtInterfaces": "k6t0"}, []outcome{
			{connection("93.184.216.34:443", from("k6t0")), "15001"}, {connection("10.244.0.5:80", from("eth0")), "15006"},
		}},
		{"AN-020 reroute-virtual-interfaces", set{"istio.io/reroute-virtual-interfaces": "net0", "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.96.0.0/16"}, []outcome{
			{connection("10.96.7.7:443", from("net0")), "15001"}, {connection("93.184.216.34:443", from("net0")), ""},
		}},
		{"AN-015 status port", set{"status.sidecar.istio.io/port": "15999"}, []outcome{
			{connection("10.244.0.5:15999", comingIn), ""}, {connection("10.244.0.5:15020", comingIn), "15006"},
		}},
		{"AN-008 interceptionMode NONE", set{"sidecar.istio.io/interceptionMode": "NONE"}, []outcome{
			{connection("10.244.0.5:80", comingIn), ""}, {connection("93.184.216.34:443"), ""},
		}},
		{"AN-008 interceptionMode TPROXY", set{"sidecar.istio.io/interceptionMode": "TPROXY"}, []outcome{
			{connection("10.244.0.5:80", comingIn), ""}, {connection("93.184.216.34:443"), "15001"},
		}},
		{"AN-024 DNS capture by proxyMetadata", set{"proxy.istio.io/config": "proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"true\"\n"}, []outcome{
			{connection("10.96.0.10:53", question), "15053"}, {connection("10.96.0.10:53"), "15053"},
			{connection("127.0.0.53:53", viaLo, question), "15053"}, {connection("10.96.0.10:53", question, byProxy), ""},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := Sidecar()
			rules.Mark = ProxyID
			rules, err := rules.Annotated(c.annotations)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range c.outcomes {
				if got := run(t, rules.chains(), o.what).decision; got != o.want {
					t.Errorf("%s: goes to %q, want %q\n%s", o.what, got, o.want, rules)
				}
			}
		})
	}
}

func TestAnnotationsThatMeanNothing(t *testing.T) {
	for annotation, value := range map[string]string{
		"traffic.sidecar.istio.io/includeInboundPorts":     "http",
		"traffic.sidecar.istio.io/excludeInboundPorts":     "*",
		"traffic.sidecar.istio.io/includeOutboundPorts":    "70000",
		"traffic.sidecar.istio.io/excludeOutboundPorts":    "0",
		"traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8,*",
		"traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.0.0.0/33",
		"traffic.sidecar.istio.io/excludeInterfaces":       "a-name-that-is-too-long",
		"traffic.sidecar.istio.io/kubevirtInterfaces":      "a/b",
		"istio.io/reroute-virtual-interfaces":              "a b",
		"sidecar.istio.io/interceptionMode":                "IPTABLES",
		"status.sidecar.istio.io/port":                     "none",
		"proxy.istio.io/config":                            "interceptionMode: SOMETIMES",
	} {
		_, err := Sidecar().Annotated(map[string]string{annotation: value})
		if err == nil || !strings.Contains(err.Error(), annotation) {
			t.Errorf("%s: %s: %v", annotation, value, err)
		}
	}
}

func FuzzAnnotations(f *testing.F) {
	f.Add("*", "10.0.0.0/8", "eth0", "proxyMetadata: {}")
	f.Add("80,443,", "::/0,1.2.3.4", "a,b", "interceptionMode: TPROXY")
	f.Fuzz(func(t *testing.T, ports, ranges, interfaces, config string) {
		r, err := Sidecar().Annotated(map[string]string{
			"traffic.sidecar.istio.io/includeInboundPorts": ports, "traffic.sidecar.istio.io/includeOutboundIPRanges": ranges,
			"traffic.sidecar.istio.io/excludeInterfaces": interfaces, "proxy.istio.io/config": config,
		})
		if err != nil {
			return
		}
		c := &transaction{}
		for _, chain := range r.chains() {
			for _, rule := range chain.rules {
				for _, m := range rule.when {
					if len(m.numbers) > 1 {
						continue // a set, which the kernel has to be there for
					}
					if _, err := c.match(m); err != nil {
						t.Fatalf("%s: %v", rule, err)
					}
				}
			}
		}
	})
}
