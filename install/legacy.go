package install

import (
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
	"values.gateways.enabled":                             "",
	"egressGateways":                                      "components.egressGateways",
	"ingressGateways":                                     "components.ingressGateways",

	// Add-ons are no part of an installation any more.
	"addonComponents":           "",
	"values.grafana":            "",
	"values.kiali":              "",
	"values.prometheus":         "",
	"values.tracing":            "",
	"values.mixer":              "",
	"values.galley":             "",
	"values.global.mtls":        "",
	"values.istiocoredns":       "",
	"values.kiali.enabled":      "",
	"values.prometheus.enabled": "",
}

// quiet are moves that are not worth a word: the fields mean the same.
func quiet(from string) bool { return strings.HasPrefix(from, "values.") && moved[from] != "" }

// A move is an entry of moved with its paths read.
type move struct {
	from, to []step // to is empty for what has no effect
	warning  string // "" for none
}

// moves are the entries of moved; those of longer paths come first.
func moves() ([]move, error) {
	var all []move
	for from, to := range moved {
		m := move{}
		var err error
		if m.from, err = parsePath(from); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		if to != "" {
			if m.to, err = parsePath(to); err != nil {
				return nil, fmt.Errorf("%s: %w", to, err)
			}
		}
		switch {
		case to == "" && strings.Contains(from, "gateways"):
			m.warning = fmt.Sprintf("%s has no effect: switch the gateways themselves", from)
		case to == "":
			m.warning = fmt.Sprintf("%s has no effect: add-ons are applied from samples/addons", from)
		case !quiet(from):
			m.warning = fmt.Sprintf("%s is %s now; taken as that", from, to)
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b move) int {
		if len(a.from) != len(b.from) {
			return len(b.from) - len(a.from)
		}
		return strings.Compare(pathText(a.from), pathText(b.from))
	})
	return all, nil
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
