package kubelet

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/kubelet/logs"
	"github.com/lateen-mesh/lateen/local/network"
)

func TestServicesInTheMesh(t *testing.T) {
	const slice = `
metadata: {namespace: ns, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.244.0.5], conditions: {ready: true}, hostname: web-0}
- {addresses: [10.244.0.4], conditions: {ready: false, serving: false}}
- {addresses: [10.244.0.3], conditions: {ready: false, serving: true, terminating: true}}`
	const ending = `
metadata: {namespace: ns, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.3], conditions: {ready: false, serving: true, terminating: true}}]`
	for _, c := range []struct {
		name, service, slice string
		want                 network.Service
	}{
		{"an address leads to what is ready, by the port's name", `{spec: {clusterIPs: [10.96.0.7], ports: [{name: http, port: 80, protocol: TCP}, {name: other, port: 81}]}}`, slice,
			network.Service{Addresses: addrs("10.96.0.7"), Ports: []network.Port{{Name: "http", Protocol: "TCP", Port: 80, Backends: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.5:8080")}}, {Name: "other", Port: 81}},
				Hosts: map[string][]netip.Addr{"web-0": addrs("10.244.0.5")}}},
		{"to what ends, when nothing else is there", `{spec: {clusterIPs: [10.96.0.7], ports: [{name: http, port: 80}], sessionAffinity: ClientIP}}`, ending,
			network.Service{Addresses: addrs("10.96.0.7"), ClientIP: true, Ports: []network.Port{{Name: "http", Port: 80, Backends: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.3:8080")}}}}},
		{"to all, when that is asked for", `{spec: {clusterIPs: [10.96.0.7], publishNotReadyAddresses: true, ports: [{name: http, port: 80}]}}`, ending,
			network.Service{Addresses: addrs("10.96.0.7"), Ports: []network.Port{{Name: "http", Port: 80, Backends: []netip.AddrPort{netip.MustParseAddrPort("10.244.0.3:8080")}}}}},
		{"headless", `{spec: {clusterIP: None, clusterIPs: [None]}}`, slice,
			network.Service{Endpoints: addrs("10.244.0.5"), Hosts: map[string][]netip.Addr{"web-0": addrs("10.244.0.5")}}},
		{"another name", `{spec: {type: ExternalName, externalName: example.org}}`, slice, network.Service{ExternalName: "example.org"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			service, behind := parse[corev1.Service](t, c.service), parse[discoveryv1.EndpointSlice](t, c.slice)
			if got := meshService(service, []*discoveryv1.EndpointSlice{behind}); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func addrs(all ...string) (list []netip.Addr) {
	for _, a := range all {
		list = append(list, netip.MustParseAddr(a))
	}
	return list
}

func TestServicesReachTheMesh(t *testing.T) {
	r := newRig(t, `{kind: Service, metadata: {name: a, namespace: ns}, spec: {clusterIPs: [10.96.0.7], ports: [{port: 80}]}}`)
	<-r.mesh.set
	r.apply(`{kind: Service, metadata: {name: b, namespace: ns}, spec: {type: ExternalName, externalName: example.org}}`)
	for names := ""; names != "a b"; {
		<-r.mesh.set
		r.mesh.mu.Lock()
		var all []string
		for _, s := range r.mesh.services {
			all = append(all, s.Name)
		}
		r.mesh.mu.Unlock()
		names = strings.Join(all, " ")
	}
}

func TestRedirection(t *testing.T) {
	for _, c := range []struct {
		name, pod string
		atStart   bool
		flags     map[string]string // of its istio-iptables container, with the annotations
	}{
		{"a pod without sidecar", `{spec: {containers: [{name: a}]}}`, false, nil},
		{"AN-003 injected, by the node's own rules", `{metadata: {annotations: {sidecar.istio.io/status: "{}"}}, spec: {containers: [{name: a}, {name: istio-proxy, args: [proxy, sidecar]}]}}`, true, nil},
		{"a gateway", `{metadata: {annotations: {sidecar.istio.io/status: "{}"}}, spec: {containers: [{name: istio-proxy, args: [proxy, router]}]}}`, false, nil},
		{"a mode alone", `{metadata: {annotations: {sidecar.istio.io/interceptionMode: TPROXY}}, spec: {containers: [{name: istio-proxy}]}}`, true, nil},
		{"istio-init in its turn, its flags before annotations", `
metadata: {annotations: {sidecar.istio.io/status: "{}", traffic.sidecar.istio.io/includeInboundPorts: "1", other: x}}
spec:
  initContainers: [{name: istio-init, args: [istio-iptables, -p, "15001", -z, "15006", -u, "1337", -m, REDIRECT, -i, "*", -x, "", -b, "*", -d, "15090,15021", -q, "9", -o, "8", -c, eth1, -k, eth2, --log_output_level=default:info]}]
  containers: [{name: a}]`, false, map[string]string{
			"sidecar.istio.io/status": "{}", "other": "x", "sidecar.istio.io/interceptionMode": "REDIRECT",
			"traffic.sidecar.istio.io/includeOutboundIPRanges": "*", "traffic.sidecar.istio.io/excludeOutboundIPRanges": "",
			"traffic.sidecar.istio.io/includeInboundPorts": "*", "traffic.sidecar.istio.io/excludeInboundPorts": "15090,15021",
			"traffic.sidecar.istio.io/includeOutboundPorts": "9", "traffic.sidecar.istio.io/excludeOutboundPorts": "8",
			"traffic.sidecar.istio.io/excludeInterfaces": "eth1", "istio.io/reroute-virtual-interfaces": "eth2"}},
		{"by its full command", `{spec: {initContainers: [{name: i, command: [/usr/local/bin/pilot-agent, istio-iptables], args: [-m, NONE], env: [{name: ISTIO_META_DNS_CAPTURE, value: "true"}]}], containers: [{name: a}]}}`, false,
			map[string]string{"sidecar.istio.io/interceptionMode": "NONE", "proxy.istio.io/config": `{"proxyMetadata": {"ISTIO_META_DNS_CAPTURE": "true"}}`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := parse[corev1.Pod](t, c.pod)
			if got := redirectedAtStart(pod); got != c.atStart {
				t.Errorf("redirected at the start: %t", got)
			}
			i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return redirects(&c) })
			if (i >= 0) != (c.flags != nil) {
				t.Fatalf("the container that redirects is %d", i)
			}
			if i < 0 {
				return
			}
			if got := asAnnotations(pod, &pod.Spec.InitContainers[i]); !maps.Equal(got, c.flags) {
				t.Errorf("annotations are %q", got)
			}
		})
	}
}

func TestInitContainerRedirects(t *testing.T) {
	r := newRig(t, `{kind: Pod, metadata: {name: a}, spec: {initContainers: [{name: istio-init, image: istio/proxyv2, args: [istio-iptables, -m, TPROXY]}], containers: [{name: a, image: test/sh, command: [sleep, "100"]}]}}`)
	pod := r.await("a", "ready", isReady)
	if got := r.mesh.pod(pod.Status.PodIP).redirect["sidecar.istio.io/interceptionMode"]; got != "TPROXY" {
		t.Errorf("the mode is %q", got)
	}
	if s := pod.Status.InitContainerStatuses[0]; !s.Ready || s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 {
		t.Errorf("its status is %+v", s)
	}
}

func TestEtc(t *testing.T) {
	const local = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
	const resolv = "search ns.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
	for _, c := range []struct{ name, spec, hostname, hosts, resolv string }{
		{"by default", `{}`, "p", "10.244.0.9\tp\n", resolv},
		{"names in a Service", `{hostname: web-0, subdomain: web, setHostnameAsFQDN: true}`, "web-0.web.ns.svc.cluster.local", "10.244.0.9\tweb-0.web.ns.svc.cluster.local\tweb-0\n", resolv},
		{"aliases", `{hostAliases: [{ip: 1.2.3.4, hostnames: [a, b]}]}`, "p", "10.244.0.9\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n", resolv},
		{"own DNS", `{dnsPolicy: None, dnsConfig: {nameservers: [9.9.9.9], searches: [x.org], options: [{name: ndots, value: "1"}, {name: rotate}]}}`, "p", "10.244.0.9\tp\n",
			"search x.org\nnameserver 9.9.9.9\noptions ndots:1 rotate\n"},
		{"more DNS", `{dnsConfig: {nameservers: [9.9.9.9], searches: [x.org, cluster.local], options: [{name: ndots, value: "2"}]}}`, "p", "10.244.0.9\tp\n",
			"search ns.svc.cluster.local svc.cluster.local cluster.local x.org\nnameserver 10.96.0.10\nnameserver 9.9.9.9\noptions ndots:2\n"},
		{"the machine's DNS", `{dnsPolicy: Default}`, "p", "10.244.0.9\tp\n", "nameserver 10.96.0.10\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := parse[corev1.Pod](t, "{metadata: {name: p, namespace: ns}, spec: "+c.spec+"}")
			got := files(pod, "10.244.0.9")
			want := map[string]string{"hostname": c.hostname + "\n", "hosts": local + c.hosts, "resolv.conf": c.resolv}
			if !maps.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

func TestWhoRuns(t *testing.T) {
	type who struct {
		uid, gid int
		groups   string
		netAdmin bool
	}
	machine, ofUser := image.Image{UID: -1, GID: -1}, image.Image{UID: 5, GID: 6, Root: "/r"}
	for _, c := range []struct {
		name, pod, container string
		img                  image.Image
		want                 who
		words                string
	}{
		{"root, by default", `{}`, `{}`, machine, who{0, 0, "[]", false}, ""},
		{"the image's user", `{}`, `{}`, ofUser, who{5, 6, "[]", false}, ""},
		{"the pod's", `{runAsUser: 1, runAsGroup: 2, fsGroup: 3, supplementalGroups: [4]}`, `{}`, ofUser, who{1, 2, "[3 4]", false}, ""},
		{"the container's before it", `{runAsUser: 1, runAsGroup: 2}`, `{runAsUser: 7, runAsGroup: 8}`, ofUser, who{7, 8, "[]", false}, ""},
		{"not root, whoever", `{runAsNonRoot: true}`, `{}`, machine, who{1000, 1000, "[]", false}, ""},
		{"not root, but root", `{}`, `{runAsNonRoot: true, runAsUser: 0}`, machine, who{}, "runAsNonRoot"},
		{"not root, but the image is", `{}`, `{runAsNonRoot: true}`, image.Image{UID: -1, GID: -1, Root: "/r"}, who{}, "runAsNonRoot"},
		{"rights over the network", `{}`, `{capabilities: {add: [NET_ADMIN], drop: [ALL]}}`, machine, who{0, 0, "[]", true}, ""},
		{"all rights", `{}`, `{privileged: true}`, machine, who{0, 0, "[]", true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := &corev1.Pod{Spec: corev1.PodSpec{SecurityContext: parse[corev1.PodSecurityContext](t, c.pod)}}
			var got container.Config
			err := identify(pod, &corev1.Container{Name: "a", SecurityContext: parse[corev1.SecurityContext](t, c.container)}, c.img, &got)
			if c.words != "" {
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Errorf("%v does not say %q", err, c.words)
				}
				return
			}
			if w := (who{got.UID, got.GID, fmt.Sprint(got.Groups), got.NetAdmin}); err != nil || w != c.want {
				t.Errorf("%+v, %v, not %+v", w, err, c.want)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	img := image.Image{Entrypoint: []string{"entry"}, Args: []string{"arg"}}
	for spec, want := range map[string]string{
		`{}`: "entry arg", `{args: [x, $(A)]}`: "entry x 1", `{command: [c, "$$(A)"]}`: "c $(A)", `{command: [c], args: [z]}`: "c z",
	} {
		if got := strings.Join(argv(parse[corev1.Container](t, spec), img, []string{"A=1"}), " "); got != want {
			t.Errorf("%s is %q, not %q", spec, got, want)
		}
	}
}

func TestLogQueries(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 10, 0, time.UTC)
	for text, want := range map[string]logs.ReadOptions{
		"":                        {Tail: -1},
		"follow=true&tailLines=0": {Follow: true},
		"sinceSeconds=3&timestamps=true&limitBytes=9": {Tail: -1, Timestamps: true, LimitBytes: 9, Since: now.Add(-3 * time.Second)},
		"sinceTime=2026-01-01T00:00:00Z&stream=All":   {Tail: -1, Since: now.Add(-10 * time.Second)},
	} {
		query, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readOptions(query, now); err != nil || got != want {
			t.Errorf("%s is %+v, %v", text, got, err)
		}
	}
}
