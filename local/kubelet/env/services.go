package env

import (
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Services are the variables that tell a pod of Services: those of its namespace when
// its enableServiceLinks is set, and always the API's.
func Services(pod *corev1.Pod, all []*corev1.Service) []string {
	links := pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks
	var chosen []*corev1.Service
	for _, s := range all {
		api := s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes"
		if (api || links && s.Namespace == pod.Namespace) && s.Spec.ClusterIP != "" && s.Spec.ClusterIP != corev1.ClusterIPNone {
			chosen = append(chosen, s)
		}
	}
	slices.SortFunc(chosen, func(a, b *corev1.Service) int { return strings.Compare(a.Name, b.Name) })
	var vars []string
	for _, s := range chosen {
		vars = append(vars, service(s)...)
	}
	return vars
}

// service is NAME_SERVICE_HOST and the names of container links.
func service(s *corev1.Service) []string {
	if len(s.Spec.Ports) == 0 {
		return nil
	}
	name := variable(s.Name)
	first := s.Spec.Ports[0]
	vars := []string{
		name + "_SERVICE_HOST=" + s.Spec.ClusterIP,
		name + "_SERVICE_PORT=" + strconv.Itoa(int(first.Port)),
	}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			vars = append(vars, name+"_SERVICE_PORT_"+variable(p.Name)+"="+strconv.Itoa(int(p.Port)))
		}
	}
	for i, p := range s.Spec.Ports {
		port, protocol := strconv.Itoa(int(p.Port)), p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		url := strings.ToLower(string(protocol)) + "://" + net.JoinHostPort(s.Spec.ClusterIP, port)
		if i == 0 {
			vars = append(vars, name+"_PORT="+url)
		}
		prefix := name + "_PORT_" + port + "_" + strings.ToUpper(string(protocol))
		vars = append(vars, prefix+"="+url, prefix+"_PROTO="+strings.ToLower(string(protocol)), prefix+"_PORT="+port, prefix+"_ADDR="+s.Spec.ClusterIP)
	}
	return vars
}

// variable is a name in the letters of variables.
func variable(name string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}
