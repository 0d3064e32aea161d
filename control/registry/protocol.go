package registry

import "strings"

// protocols is every spelling that names a protocol, in lower case.
var protocols = map[string]Protocol{
	"http": HTTP, "http2": HTTP2, "grpc": GRPC, "grpc-web": GRPCWeb,
	"https": HTTPS, "tls": TLS, "tcp": TCP, "udp": UDP,
	"mongo": Mongo, "redis": Redis, "mysql": MySQL,
}

// appProtocols are the names that Kubernetes itself defines for appProtocol.
var appProtocols = map[string]Protocol{
	"kubernetes.io/h2c": HTTP2,
	"kubernetes.io/ws":  HTTP,
	"kubernetes.io/wss": HTTPS,
}

// ParseProtocol reads the protocol field of a ServiceEntry, Gateway or Sidecar
// port; case does not matter. What it does not know is Unsupported.
func ParseProtocol(s string) Protocol {
	if p, ok := protocols[strings.ToLower(s)]; ok {
		return p
	}
	return Unsupported
}

// ProtocolOf decides what a Kubernetes Service port speaks: appProtocol, then the
// port's name ("<protocol>[-suffix]"), else unknown. UDP ports are UDP whatever
// they are called.
func ProtocolOf(transport, name, appProtocol string) Protocol {
	if strings.EqualFold(transport, "UDP") {
		return UDP
	}
	if p, ok := appProtocols[appProtocol]; ok {
		return p
	}
	if p, ok := protocols[strings.ToLower(appProtocol)]; ok {
		return p
	}
	return protocolOfName(name)
}

func protocolOfName(name string) Protocol {
	name = strings.ToLower(name)
	if name == "grpc-web" || strings.HasPrefix(name, "grpc-web-") {
		return GRPCWeb
	}
	prefix, _, _ := strings.Cut(name, "-")
	if p, ok := protocols[prefix]; ok {
		return p
	}
	return Unsupported
}
