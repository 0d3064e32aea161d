package config

import (
	"net/netip"
	"regexp"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// The rules of the Kubernetes API server for what the mesh reads of its kinds.

func validateNamespace(p place, o *Config) {
	if o.Name != "" && !isDNSLabel(o.Name) {
		p.field("metadata.name").errorf("%q is not a namespace: letters, digits and - are allowed", shorten(o.Name))
	}
}

// validateNode has nothing to judge: of a Node its labels count.
func validateNode(place, *Config) {}

// validatePod judges what the mesh reads of a Pod: where it runs.
func validatePod(p place, o *Config) {
	pod := o.Spec.(*corev1.Pod)
	if ip := pod.Status.PodIP; ip != "" {
		p.field("status.podIP").wrong(ipAddress(ip))
	}
	for i, ip := range pod.Status.PodIPs {
		p.field("status").at("podIPs", i).field("ip").wrong(ipAddress(ip.IP))
	}
}

var serviceName = regexp.MustCompile(`^[a-z](?:[-a-z0-9]*[a-z0-9])?$`)

func validateService(p place, o *Config) {
	s := o.Spec.(*corev1.Service)
	if o.Name != "" && (len(o.Name) > 63 || !serviceName.MatchString(o.Name)) {
		p.field("metadata.name").errorf("%q is not a service name: it begins with a letter and has lower-case letters, digits and -", shorten(o.Name))
	}
	p = p.field("spec")
	switch s.Spec.Type {
	case corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer:
		if len(s.Spec.Ports) == 0 && s.Spec.ClusterIP != corev1.ClusterIPNone {
			p.field("ports").errorf("at least one port is required")
		}
	case corev1.ServiceTypeExternalName:
		p.field("externalName").wrong(fqdn(s.Spec.ExternalName))
	default:
		types := []string{"ClusterIP", "NodePort", "LoadBalancer", "ExternalName"}
		p.field("type").add(Error, didYouMean(string(s.Spec.Type), types), "unknown type %q", shorten(string(s.Spec.Type)))
	}
	if ip := s.Spec.ClusterIP; ip != "" && ip != corev1.ClusterIPNone {
		p.field("clusterIP").wrong(ipAddress(ip))
	}
	p.field("selector").labels(s.Spec.Selector)
	validateServicePorts(p, s.Spec.Ports)
}

func validateServicePorts(p place, ports []corev1.ServicePort) {
	type claim struct {
		number   int32
		protocol corev1.Protocol
	}
	names, claims := map[string]bool{}, map[claim]bool{}
	for i, sp := range ports {
		at := p.at("ports", i)
		at.field("port").wrong(port(int64(sp.Port)))
		switch {
		case sp.Name == "" && len(ports) > 1:
			at.field("name").errorf("required when there are several ports")
		case sp.Name != "":
			at.field("name").wrong(portName(sp.Name))
		}
		if names[sp.Name] && sp.Name != "" {
			at.field("name").errorf("duplicate port name %q", shorten(sp.Name))
		}
		if c := (claim{sp.Port, sp.Protocol}); claims[c] {
			at.field("port").errorf("duplicate port %d", sp.Port)
		} else {
			claims[c] = true
		}
		names[sp.Name] = true
		if sp.TargetPort.StrVal != "" {
			at.field("targetPort").wrong(portName(sp.TargetPort.StrVal))
		} else {
			at.field("targetPort").wrong(port(int64(sp.TargetPort.IntVal)))
		}
		transport(at.field("protocol"), sp.Protocol)
	}
}

func transport(p place, protocol corev1.Protocol) {
	switch protocol {
	case corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP:
	default:
		p.add(Error, "what is spoken on the port goes into its name or appProtocol", "must be TCP, UDP or SCTP, got %q", shorten(string(protocol)))
	}
}

func validateEndpointSlice(p place, o *Config) {
	s := o.Spec.(*discoveryv1.EndpointSlice)
	switch s.AddressType {
	case discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6, discoveryv1.AddressTypeFQDN:
	default:
		p.field("addressType").errorf("must be IPv4, IPv6 or FQDN, got %q", shorten(string(s.AddressType)))
		return
	}
	for i, e := range s.Endpoints {
		if len(e.Addresses) == 0 {
			p.at("endpoints", i).field("addresses").errorf("at least one address is required")
		}
		for j, a := range e.Addresses {
			validateSliceAddress(p.at("endpoints", i).at("addresses", j), s.AddressType, a)
		}
	}
	for i, sp := range s.Ports {
		at := p.at("ports", i)
		if sp.Port != nil {
			at.field("port").wrong(port(int64(*sp.Port)))
		}
		if sp.Protocol != nil {
			transport(at.field("protocol"), *sp.Protocol)
		}
	}
}

func validateSliceAddress(p place, t discoveryv1.AddressType, address string) {
	if t == discoveryv1.AddressTypeFQDN {
		p.wrong(fqdn(address))
		return
	}
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() != (t == discoveryv1.AddressTypeIPv4) {
		p.errorf("%q is not an %s address", shorten(address), t)
	}
}

var dataKey = regexp.MustCompile(`^[-._a-zA-Z0-9]+$`)

// maxData is the limit of Kubernetes for the data of one object, in bytes.
const maxData = 1 << 20

func validateSecret(p place, o *Config) {
	s := o.Spec.(*corev1.Secret)
	size := 0
	for _, k := range sortedKeys(s.Data) {
		validateDataKey(p.field("data").key(k), k)
		size += len(s.Data[k])
	}
	if size > maxData {
		p.field("data").errorf("is larger than %d bytes", maxData)
	}
	if s.Type != corev1.SecretTypeTLS {
		return
	}
	for _, k := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if _, ok := s.Data[k]; !ok {
			p.field("data").key(k).errorf("required for type %s", s.Type)
		}
	}
}

func validateConfigMap(p place, o *Config) {
	c := o.Spec.(*corev1.ConfigMap)
	size := 0
	for _, k := range sortedKeys(c.Data) {
		validateDataKey(p.field("data").key(k), k)
		size += len(c.Data[k])
	}
	for _, k := range sortedKeys(c.BinaryData) {
		validateDataKey(p.field("binaryData").key(k), k)
		if _, twice := c.Data[k]; twice {
			p.field("binaryData").key(k).errorf("is in data as well")
		}
		size += len(c.BinaryData[k])
	}
	if size > maxData {
		p.field("data").errorf("is larger than %d bytes", maxData)
	}
}

func validateDataKey(p place, k string) {
	if len(k) > 253 || !dataKey.MatchString(k) {
		p.errorf("%q is not a key: letters, digits, -, _ and . are allowed", shorten(k))
	}
}
