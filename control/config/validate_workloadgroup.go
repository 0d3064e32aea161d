package config

import (
	"regexp"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateWorkloadGroup(p place, o *Config) {
	g := o.Spec.(*networking.WorkloadGroup)
	p.field("metadata.labels").labels(g.GetMetadata().GetLabels())
	if g.Template == nil {
		p.field("template").add(Error, "write template: {} for entries without settings", "required")
	} else {
		validateTemplate(p.field("template"), g.Template)
	}
	if g.Probe != nil {
		validateReadiness(p.field("probe"), g.Probe)
	}
}

// validateTemplate checks a WorkloadEntry that gets its address at registration.
func validateTemplate(p place, t *networking.WorkloadEntry) {
	if sock, unix := strings.CutPrefix(t.Address, unixScheme); unix {
		p.field("address").wrong(unixPath(sock))
		if len(t.Ports) > 0 {
			p.field("ports").errorf("cannot be set for a unix socket")
		}
	}
	for _, name := range sortedKeys(t.Ports) {
		at := p.field("ports").key(name)
		at.wrong(portName(name))
		at.wrong(port(int64(t.Ports[name])))
	}
	p.field("labels").labels(t.Labels)
}

// probeHeader is a header that a probe may send.
var probeHeader = regexp.MustCompile(`^[-_A-Za-z0-9]+$`)

func validateReadiness(p place, r *networking.ReadinessProbe) {
	p.notNegative(map[string]int32{
		"initialDelaySeconds": r.InitialDelaySeconds, "timeoutSeconds": r.TimeoutSeconds, "periodSeconds": r.PeriodSeconds,
		"successThreshold": r.SuccessThreshold, "failureThreshold": r.FailureThreshold})
	switch m := r.HealthCheckMethod.(type) {
	case *networking.ReadinessProbe_HttpGet:
		at := p.field("httpGet")
		at.field("port").wrong(port(int64(m.HttpGet.GetPort())))
		if s := m.HttpGet.GetScheme(); s != "" && s != "HTTP" && s != "HTTPS" {
			at.field("scheme").errorf("must be HTTP or HTTPS, got %q", shorten(s))
		}
		for i, h := range m.HttpGet.GetHttpHeaders() {
			if !probeHeader.MatchString(h.Name) {
				at.at("httpHeaders", i).field("name").errorf("%q is not a header name", shorten(h.Name))
			}
		}
	case *networking.ReadinessProbe_TcpSocket:
		p.field("tcpSocket.port").wrong(port(int64(m.TcpSocket.GetPort())))
	case *networking.ReadinessProbe_Grpc:
		p.field("grpc.port").wrong(port(int64(m.Grpc.GetPort())))
	case *networking.ReadinessProbe_Exec:
		if len(m.Exec.GetCommand()) == 0 {
			p.field("exec.command").errorf("required")
		}
		p.field("exec.command").notEmpty(m.Exec.GetCommand())
	default:
		p.errorf("one of httpGet, tcpSocket, exec and grpc is required")
	}
}
