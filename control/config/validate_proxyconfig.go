package config

import networkingbeta "istio.io/api/networking/v1beta1"

// validateProxyConfigObject checks the kind; validateProxyConfig the message of the same
// name in MeshConfig and annotations.
func validateProxyConfigObject(p place, o *Config) {
	c := o.Spec.(*networkingbeta.ProxyConfig)
	p.matchLabels(c.Selector)
	if n := c.GetConcurrency().GetValue(); n < 0 {
		p.field("concurrency").errorf("must not be negative, got %d", n)
	}
	for _, name := range sortedKeys(c.EnvironmentVariables) {
		p.field("environmentVariables").key(name).longest(c.EnvironmentVariables[name], 2048)
	}
}
