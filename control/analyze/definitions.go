package analyze

// A Code names one kind of message, as Istio's documentation does ("IST0101"); those that
// begin with LAT are our own.
type Code string

// The codes that messages of Istio have.
const (
	InternalError                                    Code = "IST0001"
	Deprecated                                       Code = "IST0002"
	ReferencedResourceNotFound                       Code = "IST0101"
	NamespaceNotInjected                             Code = "IST0102"
	PodMissingProxy                                  Code = "IST0103"
	SchemaValidationError                            Code = "IST0106"
	MisplacedAnnotation                              Code = "IST0107"
	UnknownAnnotation                                Code = "IST0108"
	ConflictingMeshGatewayVirtualServiceHosts        Code = "IST0109"
	ConflictingSidecarWorkloadSelectors              Code = "IST0110"
	MultipleSidecarsWithoutWorkloadSelectors         Code = "IST0111"
	VirtualServiceDestinationPortSelectorRequired    Code = "IST0112"
	DeploymentAssociatedToMultipleServices           Code = "IST0116"
	PortNameIsNotUnderNamingConvention               Code = "IST0118"
	NamespaceMultipleInjectionLabels                 Code = "IST0123"
	InvalidAnnotation                                Code = "IST0125"
	UnknownMeshNetworksServiceRegistry               Code = "IST0126"
	NoMatchingWorkloadsFound                         Code = "IST0127"
	NoServerCertificateVerificationDestinationLevel  Code = "IST0128"
	NoServerCertificateVerificationPortLevel         Code = "IST0129"
	VirtualServiceUnreachableRule                    Code = "IST0130"
	VirtualServiceIneffectiveMatch                   Code = "IST0131"
	VirtualServiceHostNotFoundInGateway              Code = "IST0132"
	SchemaWarning                                    Code = "IST0133"
	ServiceEntryAddressesRequired                    Code = "IST0134"
	DeprecatedAnnotation                             Code = "IST0135"
	AlphaAnnotation                                  Code = "IST0136"
	DeploymentConflictingPorts                       Code = "IST0137"
	GatewayDuplicateCertificate                      Code = "IST0138"
	InvalidWebhook                                   Code = "IST0139"
	IngressRouteRulesNotAffected                     Code = "IST0140"
	InsufficientPermissions                          Code = "IST0141"
	UnsupportedKubernetesVersion                     Code = "IST0142"
	LocalhostListener                                Code = "IST0143"
	InvalidApplicationUID                            Code = "IST0144"
	ConflictingGateways                              Code = "IST0145"
	ImageAutoWithoutInjectionWarning                 Code = "IST0146"
	ImageAutoWithoutInjectionError                   Code = "IST0147"
	NamespaceInjectionEnabledByDefault               Code = "IST0148"
	JwtClaimBasedRoutingWithoutRequestAuthN          Code = "IST0149"
	ExternalNameServiceTypeInvalidPortName           Code = "IST0150"
	EnvoyFilterUsesRelativeOperation                 Code = "IST0151"
	EnvoyFilterUsesReplaceOperationIncorrectly       Code = "IST0152"
	EnvoyFilterUsesAddOperationIncorrectly           Code = "IST0153"
	EnvoyFilterUsesRemoveOperationIncorrectly        Code = "IST0154"
	EnvoyFilterUsesRelativeOperationWithProxyVersion Code = "IST0155"
	UnsupportedGatewayAPIVersion                     Code = "IST0156"
	InvalidTelemetryProvider                         Code = "IST0157"
	PodsIstioProxyImageMismatchInNamespace           Code = "IST0158"
	ConflictingTelemetryWorkloadSelectors            Code = "IST0159"
	MultipleTelemetriesWithoutWorkloadSelectors      Code = "IST0160"
	InvalidGatewayCredential                         Code = "IST0161"
	GatewayPortNotDefinedOnService                   Code = "IST0162"
	InvalidExternalControlPlaneConfig                Code = "IST0163"
	ExternalControlPlaneAddressIsNotAHostname        Code = "IST0164"
	ReferencedInternalGateway                        Code = "IST0165"
	IneffectiveSelector                              Code = "IST0166"
	IneffectivePolicy                                Code = "IST0167"
	UnknownUpgradeCompatibility                      Code = "IST0168"
	UpdateIncompatibility                            Code = "IST0169"
	MultiClusterInconsistentService                  Code = "IST0170"
	NegativeConditionStatus                          Code = "IST0171"
	FutureUnsupportedGatewayAPIVersion               Code = "IST0172"
	DestinationRuleSubsetNotSelectPods               Code = "IST0173"
	UnknownDestinationRuleHost                       Code = "IST0174"
	JwksUriFetchUnrestricted                         Code = "IST0175"
	GatewayAPICRDVersionBelowMinimum                 Code = "IST0176"
	ConflictingServiceEntryProtocol                  Code = "IST0177"
)

// A definition is what all messages of a code have in common.
type definition struct {
	code  Code
	name  string
	level Level
	text  string // with a verb for each argument
	args  []string
}

// definitions are all codes of Istio in order.
func definitions() []definition {
	return []definition{
		{InternalError, "InternalError", Error, "Internal error: %v", []string{"detail: string"}},
		{Deprecated, "Deprecated", Warning, "Deprecated: %s", []string{"detail: string"}},
		{ReferencedResourceNotFound, "ReferencedResourceNotFound", Error, "Referenced %s not found: %q", []string{"reftype: string", "refval: string"}},
		{NamespaceNotInjected, "NamespaceNotInjected", Info, "The namespace is not enabled for Istio injection. Run 'kubectl label namespace %s istio-injection=enabled' to enable it, or 'kubectl label namespace %s istio-injection=disabled' to explicitly mark it as not needing injection.", []string{"namespace: string", "namespace2: string"}},
		{PodMissingProxy, "PodMissingProxy", Warning, "The pod %s is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.", []string{"podName: string"}},
		{SchemaValidationError, "SchemaValidationError", Error, "Schema validation error: %v", []string{"err: error"}},
		{MisplacedAnnotation, "MisplacedAnnotation", Warning, "Misplaced annotation: %s can only be applied to %s", []string{"annotation: string", "kind: string"}},
		{UnknownAnnotation, "UnknownAnnotation", Warning, "Unknown annotation: %s", []string{"annotation: string"}},
		{ConflictingMeshGatewayVirtualServiceHosts, "ConflictingMeshGatewayVirtualServiceHosts", Error, "The VirtualServices %s associated with mesh gateway define the same host %s which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource.", []string{"virtualServices: string", "host: string"}},
		{ConflictingSidecarWorkloadSelectors, "ConflictingSidecarWorkloadSelectors", Error, "The Sidecars %v in namespace %q select the same workload pod %q, which can lead to undefined behavior.", []string{"conflictingSidecars: []string", "namespace: string", "workloadPod: string"}},
		{MultipleSidecarsWithoutWorkloadSelectors, "MultipleSidecarsWithoutWorkloadSelectors", Error, "The Sidecars %v in namespace %q have no workload selector, which can lead to undefined behavior.", []string{"conflictingSidecars: []string", "namespace: string"}},
		{VirtualServiceDestinationPortSelectorRequired, "VirtualServiceDestinationPortSelectorRequired", Error, "This VirtualService routes to a service %q that exposes multiple ports %v. Specifying a port in the destination is required to disambiguate.", []string{"destHost: string", "destPorts: []int"}},
		{DeploymentAssociatedToMultipleServices, "DeploymentAssociatedToMultipleServices", Warning, "This deployment %s is associated with multiple services using port %d but different protocols: %v", []string{"deployment: string", "port: int32", "services: []string"}},
		{PortNameIsNotUnderNamingConvention, "PortNameIsNotUnderNamingConvention", Info, "Port name %s (port: %d, targetPort: %s) doesn't follow the naming convention of Istio port.", []string{"portName: string", "port: int", "targetPort: string"}},
		{NamespaceMultipleInjectionLabels, "NamespaceMultipleInjectionLabels", Warning, "The namespace has more than one type of injection labels %v, which may lead to undefined behavior. Make sure only one injection label exists.", []string{"labels: []string"}},
		{InvalidAnnotation, "InvalidAnnotation", Warning, "Invalid annotation %s: %s", []string{"annotation: string", "problem: string"}},
		{UnknownMeshNetworksServiceRegistry, "UnknownMeshNetworksServiceRegistry", Error, "Unknown service registry %s in network %s", []string{"serviceregistry: string", "network: string"}},
		{NoMatchingWorkloadsFound, "NoMatchingWorkloadsFound", Warning, "No matching workloads for this resource with the following labels: %s", []string{"labels: string"}},
		{NoServerCertificateVerificationDestinationLevel, "NoServerCertificateVerificationDestinationLevel", Warning, "DestinationRule %s in namespace %s has TLS mode set to %s but no caCertificates are set to validate server identity for host: %s", []string{"destinationrule: string", "namespace: string", "mode: string", "host: string"}},
		{NoServerCertificateVerificationPortLevel, "NoServerCertificateVerificationPortLevel", Warning, "DestinationRule %s in namespace %s has TLS mode set to %s but no caCertificates are set to validate server identity for host: %s at port %s", []string{"destinationrule: string", "namespace: string", "mode: string", "host: string", "port: string"}},
		{VirtualServiceUnreachableRule, "VirtualServiceUnreachableRule", Warning, "VirtualService rule %v not used (%s).", []string{"ruleno: string", "reason: string"}},
		{VirtualServiceIneffectiveMatch, "VirtualServiceIneffectiveMatch", Info, "VirtualService rule %v match %v is not used (duplicate/overlapping match in rule %v).", []string{"ruleno: string", "matchno: string", "dupno: string"}},
		{VirtualServiceHostNotFoundInGateway, "VirtualServiceHostNotFoundInGateway", Warning, "one or more host %v defined in VirtualService %s not found in Gateway %s.", []string{"host: []string", "virtualservice: string", "gateway: string"}},
		{SchemaWarning, "SchemaWarning", Warning, "Schema validation warning: %v", []string{"err: error"}},
		{ServiceEntryAddressesRequired, "ServiceEntryAddressesRequired", Warning, "ServiceEntry addresses are required for this protocol.", nil},
		{DeprecatedAnnotation, "DeprecatedAnnotation", Info, "Annotation %q has been deprecated%s and may not work in future Istio versions.", []string{"annotation: string", "extra: string"}},
		{AlphaAnnotation, "AlphaAnnotation", Info, "Annotation %q is part of an alpha-phase feature and may be incompletely supported.", []string{"annotation: string"}},
		{DeploymentConflictingPorts, "DeploymentConflictingPorts", Warning, "This deployment %s is associated with multiple services %v using targetPort %q but different ports: %v.", []string{"deployment: string", "services: []string", "targetPort: string", "ports: []int32"}},
		{GatewayDuplicateCertificate, "GatewayDuplicateCertificate", Warning, "Duplicate certificate in multiple gateways %v may cause 404s if clients re-use HTTP2 connections.", []string{"gateways: []string"}},
		{InvalidWebhook, "InvalidWebhook", Error, "%v", []string{"error: string"}},
		{IngressRouteRulesNotAffected, "IngressRouteRulesNotAffected", Warning, "Subset in virtual service %s has no effect on ingress gateway %s requests", []string{"virtualservicesubset: string", "virtualservice: string"}},
		{InsufficientPermissions, "InsufficientPermissions", Error, "Missing required permission to create resource %v (%v)", []string{"resource: string", "error: string"}},
		{UnsupportedKubernetesVersion, "UnsupportedKubernetesVersion", Error, "The Kubernetes Version %q is lower than the minimum version: %v", []string{"version: string", "minimumVersion: string"}},
		{LocalhostListener, "LocalhostListener", Error, "Port %v is exposed in a Service but listens on localhost. It will not be exposed to other pods.", []string{"port: string"}},
		{InvalidApplicationUID, "InvalidApplicationUID", Warning, "User ID (UID) 1337 is reserved for the sidecar proxy.", nil},
		{ConflictingGateways, "ConflictingGateways", Error, "Conflict with gateways %s (workload selector %s, port %s, hosts %v).", []string{"gateway: string", "selector: string", "portnumber: string", "hosts: string"}},
		{ImageAutoWithoutInjectionWarning, "ImageAutoWithoutInjectionWarning", Warning, "%s %s contains `image: auto` but does not match any Istio injection webhook selectors.", []string{"resourceType: string", "resourceName: string"}},
		{ImageAutoWithoutInjectionError, "ImageAutoWithoutInjectionError", Error, "%s %s contains `image: auto` but does not match any Istio injection webhook selectors.", []string{"resourceType: string", "resourceName: string"}},
		{NamespaceInjectionEnabledByDefault, "NamespaceInjectionEnabledByDefault", Info, "is enabled for Istio injection, as Istio is installed with enableNamespacesByDefault as true.", nil},
		{JwtClaimBasedRoutingWithoutRequestAuthN, "JwtClaimBasedRoutingWithoutRequestAuthN", Error, "The virtual service uses the JWT claim based routing (key: %s) but found no request authentication for the gateway (%s) pod (%s). The request authentication must first be applied for the gateway pods to validate the JWT token and make the claims available for routing.", []string{"key: string", "gateway: string", "pod: string"}},
		{ExternalNameServiceTypeInvalidPortName, "ExternalNameServiceTypeInvalidPortName", Warning, "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly", nil},
		{EnvoyFilterUsesRelativeOperation, "EnvoyFilterUsesRelativeOperation", Warning, "This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.", nil},
		{EnvoyFilterUsesReplaceOperationIncorrectly, "EnvoyFilterUsesReplaceOperationIncorrectly", Error, "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.", nil},
		{EnvoyFilterUsesAddOperationIncorrectly, "EnvoyFilterUsesAddOperationIncorrectly", Error, "The ADD operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.", nil},
		{EnvoyFilterUsesRemoveOperationIncorrectly, "EnvoyFilterUsesRemoveOperationIncorrectly", Error, "The REMOVE operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.", nil},
		{EnvoyFilterUsesRelativeOperationWithProxyVersion, "EnvoyFilterUsesRelativeOperationWithProxyVersion", Warning, "This EnvoyFilter does not have a priority and has a relative patch operation (NSTERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the EnvoyFilter not to be applied during an upgrade. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.", nil},
		{UnsupportedGatewayAPIVersion, "UnsupportedGatewayAPIVersion", Error, "The Gateway API CRD version %v is lower than the minimum version: %v", []string{"version: string", "minimumVersion: string"}},
		{InvalidTelemetryProvider, "InvalidTelemetryProvider", Warning, "The Telemetry %v in namespace %q with empty providers will be ignored.", []string{"name: string", "namespace: string"}},
		{PodsIstioProxyImageMismatchInNamespace, "PodsIstioProxyImageMismatchInNamespace", Warning, "The Istio proxy images of the pods running in the namespace do not match the image defined in the injection configuration (pod names: %v). This often happens after upgrading the Istio control-plane and can be fixed by redeploying the pods.", []string{"podNames: []string"}},
		{ConflictingTelemetryWorkloadSelectors, "ConflictingTelemetryWorkloadSelectors", Error, "The Telemetries %v in namespace %q select the same workload pod %q, which can lead to undefined behavior.", []string{"conflictingTelemetries: []string", "namespace: string", "workloadPod: string"}},
		{MultipleTelemetriesWithoutWorkloadSelectors, "MultipleTelemetriesWithoutWorkloadSelectors", Error, "The Telemetries %v in namespace %q have no workload selector, which can lead to undefined behavior.", []string{"conflictingTelemetries: []string", "namespace: string"}},
		{InvalidGatewayCredential, "InvalidGatewayCredential", Error, "The credential referenced by the Gateway %s in namespace %s is invalid, which can cause the traffic not to work as expected.", []string{"gatewayName: string", "gatewayNamespace: string"}},
		{GatewayPortNotDefinedOnService, "GatewayPortNotDefinedOnService", Warning, "The gateway is listening on a target port (port %d) that is not defined in the Service associated with its workload instances (Pod selector %s). If you need to access the gateway port through the gateway Service, it will not be available.", []string{"port: int", "selector: string"}},
		{InvalidExternalControlPlaneConfig, "InvalidExternalControlPlaneConfig", Warning, "The hostname (%s) that was provided for the webhook (%s) to reach the ingress gateway on the external control plane cluster %s. Traffic may not flow properly.", []string{"hostname: string", "webhook: string", "msg: string"}},
		{ExternalControlPlaneAddressIsNotAHostname, "ExternalControlPlaneAddressIsNotAHostname", Info, "The address (%s) that was provided for the webhook (%s) to reach the ingress gateway on the external control plane cluster is an IP address. This is not recommended for a production environment.", []string{"hostname: string", "webhook: string"}},
		{ReferencedInternalGateway, "ReferencedInternalGateway", Warning, "Gateway reference in VirtualService %s is to an implementation-generated internal Gateway: %s.", []string{"virtualservice: string", "gateway: string"}},
		{IneffectiveSelector, "IneffectiveSelector", Warning, "Ineffective selector on Kubernetes Gateway %s. Use the TargetRef field instead.", []string{"gateway: string"}},
		{IneffectivePolicy, "IneffectivePolicy", Warning, "The policy has no impact: %s.", []string{"reason: string"}},
		{UnknownUpgradeCompatibility, "UnknownUpgradeCompatibility", Warning, "The configuration %q changed in release %s, but compatibility cannot be automatically detected: %s. Or, install with `--set compatibilityVersion=%s` to retain the old default.", []string{"field: string", "release: string", "info: string", "compatVersion: string"}},
		{UpdateIncompatibility, "UpdateIncompatibility", Warning, "The configuration %q changed in release %s: %s. Or, install with `--set compatibilityVersion=%s` to retain the old default.", []string{"field: string", "release: string", "info: string", "compatVersion: string"}},
		{MultiClusterInconsistentService, "MultiClusterInconsistentService", Warning, "The service %v in namespace %q is inconsistent across clusters %q, which can lead to undefined behaviors. The inconsistent behaviors are: %v.", []string{"serviceName: string", "namespace: string", "clusters: []string", "error: string"}},
		{NegativeConditionStatus, "NegativeConditionStatus", Warning, "A condition with a negative status is present: type=%s, reason=%s, message=%s.", []string{"conditionType: string", "reason: string", "message: string"}},
		{FutureUnsupportedGatewayAPIVersion, "FutureUnsupportedGatewayAPIVersion", Warning, "The Gateway API CRD version %v is lower than the minimum version: %v", []string{"version: string", "minimumVersion: string"}},
		{DestinationRuleSubsetNotSelectPods, "DestinationRuleSubsetNotSelectPods", Error, "The Subset %s defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).", []string{"subset: string"}},
		{UnknownDestinationRuleHost, "UnknownDestinationRuleHost", Warning, "The host %s defined in the DestinationRule does not match any services in the mesh.", []string{"host: string"}},
		{JwksUriFetchUnrestricted, "JwksUriFetchUnrestricted", Warning, "BLOCKED_CIDRS_IN_JWKS_URIS is not configured but %d RequestAuthentication resource(s) exist (%s). Consider configuring it to restrict JWKS URI fetches to trusted networks.", []string{"count: int", "names: string"}},
		{GatewayAPICRDVersionBelowMinimum, "GatewayAPICRDVersionBelowMinimum", Warning, "Gateway API CRD %q is at version %q but Istio requires at least %q; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version.", []string{"crd: string", "installedVersion: string", "minimumVersion: string"}},
		{ConflictingServiceEntryProtocol, "ConflictingServiceEntryProtocol", Warning, "Multiple ServiceEntries (%s) define the same host %q and port %d with conflicting protocols (%s).", []string{"serviceEntryNames: string", "host: string", "port: int", "protocols: string"}},
	}
}
