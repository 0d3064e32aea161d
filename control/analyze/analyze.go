// Package analyze finds what is wrong with a mesh's configuration beyond what validation of
// each object by itself can see: references to nothing, selectors that select nothing,
// objects that fight over a host or workload, webhooks and annotations that do not do what
// they seem to.
//
// A Mesh is filled with objects, from files (AddText) and from an API server (AddObject),
// and then asked for its messages. Objects that the mesh would refuse are analyzed too, as
// far as they can be read. Analyzers read; what a rule means is asked of the packages that
// serve it: hosts and visibility of control/mesh, protocols of control/registry, validity
// of control/config, injection of control/inject.
//
//	m := analyze.NewMesh(analyze.Options{})
//	m.AddText("a.yaml", text)
//	for _, found := range m.Messages(analyze.Selection{}) {
//		fmt.Println(found) // Error [IST0101] (VirtualService default/a a.yaml:9) Referenced …
//	}
//
// Codes that begin with IST are Istio's, with its texts and levels; those that begin with LAT
// are our own, name the field and say what to do.
//
// A new analyzer is a file with a function and a line in the table of analyzers.
package analyze

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/control/config"
)

// An analyzer looks for one sort of mistake.
type analyzer struct {
	name  string
	about string
	reads []kind
	codes []Code // that it may report
	run   func(*pass)
}

// analyzers are all, in the order in which they run. Their names are those of Istio, as far
// as it has them.
func analyzers() []analyzer {
	return []analyzer{
		{"annotations.K8sAnalyzer", "Checks for misplaced and invalid Istio annotations in Kubernetes resources",
			[]kind{namespace, service, pod, deployment}, []Code{MisplacedAnnotation, UnknownAnnotation, InvalidAnnotation, DeprecatedAnnotation}, annotations},
		{"authn.BlockedCIDRsAnalyzer", "Checks that the control plane restricts where keys for tokens are fetched from",
			[]kind{requestAuthentication, deployment}, []Code{JwksUriFetchUnrestricted}, blockedCIDRs},
		{"authz.AuthorizationPoliciesAnalyzer", "Checks the validity of authorization policies",
			[]kind{authorizationPolicy, namespace, pod}, []Code{NoMatchingWorkloadsFound, ReferencedResourceNotFound}, authorizationPolicies},
		{"conditions.ConditionAnalyzer", "Checks for negative status conditions on resources",
			[]kind{service, serviceEntry, authorizationPolicy, kubernetesGateway, httpRoute, grpcRoute}, []Code{NegativeConditionStatus}, conditions},
		{"deployment.ServiceAssociationAnalyzer", "Checks association between services and pods",
			[]kind{service, deployment, namespace}, []Code{DeploymentAssociatedToMultipleServices, DeploymentConflictingPorts}, serviceAssociations},
		{"deployment.ApplicationUIDAnalyzer", "Checks invalid application UID",
			[]kind{pod, deployment}, []Code{InvalidApplicationUID}, applicationUIDs},
		{"deprecation.FieldAnalyzer", "Checks for deprecated Istio types and fields",
			[]kind{virtualService, sidecar}, []Code{Deprecated}, deprecations},
		{"destinationrule.CaCertificateAnalyzer", "Checks if caCertificates is set when TLS mode is SIMPLE/MUTUAL",
			[]kind{destinationRule}, []Code{NoServerCertificateVerificationDestinationLevel, NoServerCertificateVerificationPortLevel}, caCertificates},
		{"destinationrule.PodNotSelectedAnalyzer", "Checks that the host and the subsets of a destination rule are of something",
			[]kind{destinationRule, service, serviceEntry, pod, node}, []Code{DestinationRuleSubsetNotSelectPods, UnknownDestinationRuleHost}, subsets},
		{"envoyfilter.EnvoyPatchAnalyzer", "Checks an envoyFilter for patches that may not be applied",
			[]kind{envoyFilter}, []Code{EnvoyFilterUsesRelativeOperation, EnvoyFilterUsesRelativeOperationWithProxyVersion,
				EnvoyFilterUsesAddOperationIncorrectly, EnvoyFilterUsesRemoveOperationIncorrectly, EnvoyFilterUsesReplaceOperationIncorrectly}, envoyFilters},
		{"externalcontrolplane.ExternalControlPlaneAnalyzer", "Checks that the webhooks of an external control plane reach it",
			[]kind{validatingWebhook, mutatingWebhook}, []Code{InvalidExternalControlPlaneConfig, ExternalControlPlaneAddressIsNotAHostname}, externalControlPlane},
		{"gateway.IngressGatewayPortAnalyzer", "Checks a gateway's ports against the gateway's Kubernetes service ports",
			[]kind{gateway, pod, service}, []Code{ReferencedResourceNotFound, GatewayPortNotDefinedOnService}, gatewayPorts},
		{"gateway.CertificateAnalyzer", "Checks a gateway certificate",
			[]kind{gateway}, []Code{GatewayDuplicateCertificate}, gatewayCertificates},
		{"gateway.SecretAnalyzer", "Checks a gateway's referenced secrets for correctness",
			[]kind{gateway, pod, secret}, []Code{ReferencedResourceNotFound, InvalidGatewayCredential}, gatewaySecrets},
		{"gateway.CertificateFitAnalyzer", "Checks that certificates are for the hosts of their servers, and for now",
			[]kind{gateway}, []Code{CertificateHostMismatch, CertificateOutOfTime, CertificateKeyMismatch, ClientCANotFound}, servedCertificates},
		{"gateway.ConflictingGatewayAnalyzer", "Checks a gateway's selector, port number and hosts",
			[]kind{gateway, pod}, []Code{ReferencedResourceNotFound, ConflictingGateways}, conflictingGateways},
		{"injection.Analyzer", "Checks conditions related to Istio sidecar injection",
			[]kind{namespace, pod, configMap}, []Code{NamespaceNotInjected, PodMissingProxy, NamespaceMultipleInjectionLabels, NamespaceInjectionEnabledByDefault}, injection},
		{"injection.ImageAnalyzer", "Checks the image of auto-injection configured with the running proxies",
			[]kind{namespace, pod, configMap, proxyConfig}, []Code{PodsIstioProxyImageMismatchInNamespace}, proxyImages},
		{"injection.ImageAutoAnalyzer", "Makes sure that pods and deployments with `image: auto` are going to be injected",
			[]kind{namespace, pod, deployment, mutatingWebhook}, []Code{ImageAutoWithoutInjectionWarning, ImageAutoWithoutInjectionError}, automaticImages},
		{"k8sgateway.SelectorAnalyzer", "Check that selectors are effective for Kubernetes gateway",
			[]kind{authorizationPolicy, requestAuthentication, telemetryPolicy, wasmPlugin, pod}, []Code{IneffectiveSelector}, ineffectiveSelectors},
		{"k8sgateway.CRDVersionAnalyzer", "Checks that the Gateway API is new enough",
			[]kind{customResource}, []Code{GatewayAPICRDVersionBelowMinimum}, gatewayAPIVersions},
		{"maturity.AlphaAnalyzer", "Checks for alpha Istio annotations in Kubernetes resources",
			[]kind{namespace, service, pod, deployment}, []Code{AlphaAnnotation}, alphaAnnotations},
		{"multicluster.MeshNetworksAnalyzer", "Check the validity of MeshNetworks in the cluster",
			[]kind{secret}, []Code{UnknownMeshNetworksServiceRegistry}, meshNetworks},
		{"schema.ValidationAnalyzer", "Runs schema validation on Istio resources",
			nil, []Code{SchemaValidationError, SchemaWarning, VirtualServiceUnreachableRule, VirtualServiceIneffectiveMatch}, validation},
		{"service.PortNameAnalyzer", "Checks the port names associated with each service",
			[]kind{service}, []Code{PortNameIsNotUnderNamingConvention, ExternalNameServiceTypeInvalidPortName}, portNames},
		{"serviceentry.ProtocolAddressesAnalyzer", "Checks the validity of ServiceEntry",
			[]kind{serviceEntry}, []Code{ServiceEntryAddressesRequired}, protocolAddresses},
		{"serviceentry.ConflictingServiceEntryProtocolAnalyzer", "Checks that service entries agree on the protocol of a host's port",
			[]kind{serviceEntry}, []Code{ConflictingServiceEntryProtocol}, conflictingProtocols},
		{"sidecar.SelectorAnalyzer", "Validates that sidecars select existing workloads, one for each, and one for a namespace",
			[]kind{sidecar, pod, namespace}, []Code{ReferencedResourceNotFound, ConflictingSidecarWorkloadSelectors, MultipleSidecarsWithoutWorkloadSelectors, IneffectivePolicy}, sidecars},
		{"telemetry.ProviderAnalyzer", "Validates that providers in telemetry resource are valid",
			[]kind{telemetryPolicy}, []Code{InvalidTelemetryProvider}, telemetryProviders},
		{"telemetry.SelectorAnalyzer", "Validates that telemetries select existing workloads, one for each, and one for a namespace",
			[]kind{telemetryPolicy, pod}, []Code{ReferencedResourceNotFound, ConflictingTelemetryWorkloadSelectors, MultipleTelemetriesWithoutWorkloadSelectors}, telemetries},
		{"virtualservice.ConflictingMeshGatewayHostsAnalyzer", "Checks if multiple virtual services associated with the mesh gateway have conflicting hosts",
			[]kind{virtualService}, []Code{ConflictingMeshGatewayVirtualServiceHosts}, conflictingHosts},
		{"virtualservice.DestinationHostAnalyzer", "Checks the destination hosts associated with each virtual service",
			[]kind{virtualService, service, serviceEntry}, []Code{ReferencedResourceNotFound, VirtualServiceDestinationPortSelectorRequired, IngressRouteRulesNotAffected}, destinationHosts},
		{"virtualservice.DestinationRuleAnalyzer", "Checks the destination rules associated with each virtual service",
			[]kind{virtualService, destinationRule}, []Code{ReferencedResourceNotFound}, destinationSubsets},
		{"virtualservice.GatewayAnalyzer", "Checks the gateways associated with each virtual service",
			[]kind{gateway, kubernetesGateway, virtualService}, []Code{ReferencedResourceNotFound, VirtualServiceHostNotFoundInGateway, ReferencedInternalGateway}, routeGateways},
		{"virtualservice.JWTClaimRouteAnalyzer", "Checks the VirtualService using JWT claim based routing has corresponding RequestAuthentication",
			[]kind{virtualService, requestAuthentication, gateway, pod}, []Code{JwtClaimBasedRoutingWithoutRequestAuthN}, claimRoutes},
		{"virtualservice.ShadowedRulesAnalyzer", "Checks for rules of which earlier, broader ones take all requests",
			[]kind{virtualService}, []Code{RuleNeverMatches}, shadowedRules},
		{"virtualservice.EndpointsAnalyzer", "Checks that something serves the destinations of each virtual service",
			[]kind{virtualService, service, serviceEntry, workloadEntry, endpointSlice, pod, secret}, []Code{DestinationWithoutEndpoints}, emptyDestinations},
		{"webhook.Analyzer", "Checks the validity of Istio webhooks",
			[]kind{mutatingWebhook, service}, []Code{InvalidWebhook}, webhooks},
	}
}

// An Analyzer is one as users choose it.
type Analyzer struct{ Name, Description string }

// Analyzers are all that there are, by name.
func Analyzers() []Analyzer {
	var all []Analyzer
	for _, a := range analyzers() {
		all = append(all, Analyzer{a.name, a.about})
	}
	slices.SortFunc(all, func(a, b Analyzer) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// A Selection says which messages are wanted; the zero Selection wants all.
type Selection struct {
	Namespace string   // of the objects; cluster-wide ones count as well, "" is all
	Analyzers []string // by name; empty is all
	Suppress  []Suppression
}

// A pass is one run of one analyzer.
type pass struct {
	*Mesh
	found []Message
}

// report adds a message about a field of an object ("spec.http[0].route"; "" is the object).
func (p *pass) report(o *object, field string, code Code, args ...any) {
	m := New(code, o.Key, o.at(field), args...)
	m.unwanted = o.annotations[suppressAnnotation]
	p.found = append(p.found, m)
}

// Messages analyzes the mesh: the worst first, then by code and object.
func (m *Mesh) Messages(want Selection) []Message {
	m.prepare()
	var all []Message
	for _, a := range m.chosen(want) {
		p := &pass{Mesh: m}
		p.try(a)
		all = append(all, p.found...)
	}
	all = slices.DeleteFunc(all, func(f Message) bool {
		return want.Namespace != "" && !f.in(want.Namespace) || f.suppressed(want.Suppress)
	})
	return sorted(all)
}

// try keeps an object that nobody has validated from ending the whole analysis.
func (p *pass) try(a analyzer) {
	defer func() {
		if cause := recover(); cause != nil {
			p.found = append(p.found, New(InternalError, config.Key{}, config.Source{}, fmt.Sprintf("%s: %v", a.name, cause)))
		}
	}()
	a.run(p)
}

// chosen are the analyzers that run.
func (m *Mesh) chosen(want Selection) []analyzer {
	return slices.DeleteFunc(analyzers(), func(a analyzer) bool { return !want.names(a.name) || m.lacks(a) })
}

func (w Selection) names(analyzer string) bool {
	return len(w.Analyzers) == 0 || slices.Contains(w.Analyzers, analyzer)
}

// lacks reports whether an analyzer looks at what is not known.
func (m *Mesh) lacks(a analyzer) bool {
	return slices.ContainsFunc(a.reads, func(k kind) bool { return m.lacking[k] })
}

// Split tells the wanted analyzers that run from those that are left out, since the mesh
// does not know what they look at.
func (m *Mesh) Split(want Selection) (run, left []string) {
	for _, a := range analyzers() {
		switch {
		case !want.names(a.name):
		case m.lacks(a):
			left = append(left, a.name)
		default:
			run = append(run, a.name)
		}
	}
	return run, left
}

// in reports whether a message is about something in the namespace. The namespace itself
// is; what is in none concerns everybody.
func (m Message) in(namespace string) bool {
	if m.Object.Kind == config.Namespace {
		return m.Object.Name == namespace
	}
	return m.Object.Namespace == "" || m.Object.Namespace == namespace
}
