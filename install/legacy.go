package install

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// moved are fields of old versions, by what they are now. What is below a field moves along.
var moved = map[string]string{
	"values.meshConfig":                                   "meshConfig",
	"values.global.accessLogFile":                         "meshConfig.accessLogFile",
	"values.global.outboundTrafficPolicy":                 "meshConfig.outboundTrafficPolicy",
	"values.global.enableTracing":                         "meshConfig.enableTracing",
	"values.global.trustDomain":                           "meshConfig.trustDomain",
	"values.global.trustDomainAliases":                    "meshConfig.trustDomainAliases",
	"values.global.localityLbSetting":                     "meshConfig.localityLbSetting",
	"values.global.mtls.auto":                             "meshConfig.enableAutoMtls",
	"values.global.tracer.zipkin.address":                 "meshConfig.defaultConfig.tracing.zipkin.address",
	"values.global.proxy.accessLogFile":                   "meshConfig.accessLogFile",
	"values.global.proxy.accessLogFormat":                 "meshConfig.accessLogFormat",
	"values.global.proxy.accessLogEncoding":               "meshConfig.accessLogEncoding",
	"values.global.proxy.concurrency":                     "meshConfig.defaultConfig.concurrency",
	"values.global.proxy.dnsRefreshRate":                  "meshConfig.dnsRefreshRate",
	"values.global.proxy.holdApplicationUntilProxyStarts": "meshConfig.defaultConfig.holdApplicationUntilProxyStarts",
	"values.global.proxy.protocolDetectionTimeout":        "meshConfig.protocolDetectionTimeout",
	"values.gateways.istio-ingressgateway.enabled":        "components.ingressGateways.[name:istio-ingressgateway].enabled",
	"values.gateways.istio-egressgateway.enabled":         "components.egressGateways.[name:istio-egressgateway].enabled",
	"egressGateways":                                      "components.egressGateways",
	"ingressGateways":                                     "components.ingressGateways",
}

// addons are fields of what is no part of an installation any more, gone those of what there
// is no more at all.
var (
	addons = []string{"addonComponents", "values.grafana", "values.kiali", "values.prometheus", "values.tracing"}
	gone   = []string{"values.gateways.enabled", "values.galley", "values.global.mtls", "values.istiocoredns", "values.mixer"}
)

// A move is an old field with what became of it.
type move struct {
	from, to []step // to is empty for what has no effect
	warning  string // "" for none
}

// moves are all of them; those of longer paths come first. Where a value has another place
// and the same meaning there is nothing to say.
func moves() ([]move, error) {
	var all []move
	add := func(from, to, warning string) error {
		m := move{warning: warning}
		var err error
		if m.from, err = parsePath(from); err == nil && to != "" {
			m.to, err = parsePath(to)
		}
		all = append(all, m)
		return err
	}
	var errs []error
	for from, to := range moved {
		warning := ""
		if !strings.HasPrefix(from, "values.") {
			warning = fmt.Sprintf("%s is %s now; taken as that", from, to)
		}
		errs = append(errs, add(from, to, warning))
	}
	for _, from := range addons {
		errs = append(errs, add(from, "", from+" has no effect: add-ons are applied from samples/addons"))
	}
	for _, from := range gone {
		errs = append(errs, add(from, "", from+" has no effect any more"))
	}
	slices.SortFunc(all, func(a, b move) int {
		return cmp.Or(cmp.Compare(len(b.from), len(a.from)), slices.CompareFunc(a.from, b.from, func(x, y step) int { return strings.Compare(x.key, y.key) }))
	})
	return all, errors.Join(errs...)
}

// movePath is where a path of --set leads now; ok is false where it has no effect.
func movePath(all []move, path []step) (now []step, warning string, ok bool) {
	for _, m := range all {
		if len(path) >= len(m.from) && slices.Equal(path[:len(m.from)], m.from) {
			return slices.Concat(m.to, path[len(m.from):]), m.warning, len(m.to) > 0
		}
	}
	return path, "", true
}
