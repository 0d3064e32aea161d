package analyze

import (
	"net/netip"
	"net/url"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// externalControlPlane finds webhooks of the mesh that name neither a service nor a usable
// address. Whether the name resolves is not tried: the analysis does not depend on where it
// runs.
func externalControlPlane(p *pass) {
	for _, o := range of[*admissionv1.ValidatingWebhookConfiguration](p.Mesh, validatingWebhook) {
		if o.Name != "istiod-default-validator" && !strings.HasPrefix(o.Name, "istio-validator") {
			continue
		}
		for i, w := range o.spec.Webhooks {
			p.checkAddress(o.object, i, w.Name, w.ClientConfig)
		}
	}
	for _, o := range of[*admissionv1.MutatingWebhookConfiguration](p.Mesh, mutatingWebhook) {
		if !strings.HasPrefix(o.Name, "istio-sidecar-injector") {
			continue
		}
		for i, w := range o.spec.Webhooks {
			p.checkAddress(o.object, i, w.Name, w.ClientConfig)
		}
	}
}

func (p *pass) checkAddress(o *object, i int, name string, c admissionv1.WebhookClientConfig) {
	at := indexed("webhooks", i) + ".clientConfig"
	if c.URL == nil {
		if c.Service == nil {
			p.report(o, at, InvalidExternalControlPlaneConfig, "", name, "is blank")
		}
		return
	}
	u, err := url.Parse(*c.URL)
	switch {
	case *c.URL == "":
		p.report(o, at+".url", InvalidExternalControlPlaneConfig, "", name, "is blank")
	case err != nil || u.Hostname() == "":
		p.report(o, at+".url", InvalidExternalControlPlaneConfig, *c.URL, name, "is not a URL with a host")
	default:
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			p.report(o, at+".url", ExternalControlPlaneAddressIsNotAHostname, *c.URL, name)
		}
	}
}
