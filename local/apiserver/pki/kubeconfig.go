package pki

import (
	"crypto/x509"
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Context is the name of context, cluster and user in the kubeconfig.
const Context = "lateen"

// WriteKubeconfig writes the file with which the administrator reaches the server
// at address (host:port). The file holds a key: its mode is 0600. It replaces an
// earlier one at once.
func (k *Keys) WriteKubeconfig(path, address string) error {
	key, err := x509.MarshalPKCS8PrivateKey(k.Administrator.PrivateKey)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters[Context] = &clientcmdapi.Cluster{
		Server: "https://" + address, CertificateAuthorityData: k.AuthorityPEM,
	}
	config.AuthInfos[Context] = &clientcmdapi.AuthInfo{
		ClientCertificateData: encode("CERTIFICATE", k.Administrator.Certificate[0]),
		ClientKeyData:         encode("PRIVATE KEY", key),
	}
	config.Contexts[Context] = &clientcmdapi.Context{Cluster: Context, AuthInfo: Context, Namespace: "default"}
	config.CurrentContext = Context
	text, err := clientcmd.Write(*config)
	if err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	if err := writeFile(path, text); err != nil {
		return fmt.Errorf("kubeconfig: %w", err)
	}
	return nil
}
