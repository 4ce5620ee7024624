// What Istio's agent does to get a workload's certificate, by the agent's own code: its key and request, its client of the
// authority, its token. It ends well if the answer is a certificate of the identity asked for, under the mesh's root.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"os"
	"time"

	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/credentialfetcher/plugin"
	"istio.io/istio/security/pkg/nodeagent/cache"
	"istio.io/istio/security/pkg/nodeagent/caclient/providers/citadel"
)

func main() {
	authority := flag.String("authority", "weft-ca.weft-system.svc:15012", "where the authority is")
	root := flag.String("root", "/var/run/secrets/istio/root.pem", "file with the mesh's roots")
	token := flag.String("token", "/var/run/secrets/tokens/istio-token", "file with the pod's token")
	domain := flag.String("trust-domain", "cluster.local", "trust domain")
	namespace := flag.String("namespace", "default", "the pod's namespace")
	account := flag.String("account", "default", "the pod's ServiceAccount")
	flag.Parse()
	if err := ask(*authority, *root, *token, *domain, *namespace, *account); err != nil {
		log.Fatal(err)
	}
}

func ask(authority, root, token, domain, namespace, account string) error {
	options := &security.Options{
		CAEndpoint:         authority,
		TrustDomain:        domain,
		WorkloadNamespace:  namespace,
		ServiceAccount:     account,
		WorkloadRSAKeySize: 2048,
		SecretTTL:          time.Hour,
		CredFetcher:        plugin.CreateTokenPlugin(token),
	}
	client, err := citadel.NewCitadelClient(options, &citadel.TLSOptions{RootCert: root})
	if err != nil {
		return err
	}
	defer client.Close()
	manager, err := cache.NewSecretManagerClient(client, options)
	if err != nil {
		return err
	}
	defer manager.Close()
	secret, err := manager.GenerateSecret(security.WorkloadKeyCertResourceName)
	if err != nil {
		return err
	}
	anchors, err := manager.GenerateSecret(security.RootCertReqResourceName)
	if err != nil {
		return err
	}
	return verify(secret, anchors.RootCert, root, fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", domain, namespace, account))
}

func verify(secret *security.SecretItem, anchors []byte, root, identity string) error {
	pair, err := tls.X509KeyPair(secret.CertificateChain, secret.PrivateKey)
	if err != nil {
		return fmt.Errorf("certificate and key: %w", err)
	}
	known, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	// The agent takes the root from the end of the chain, and gives it to its proxy.
	if block, _ := pem.Decode(anchors); block == nil || !contains(known, block.Bytes) {
		return fmt.Errorf("the agent took for the root what isn't the mesh's:\n%s", anchors)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(known)
	for _, der := range pair.Certificate[1:] {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		between.AddCert(parsed)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return err
	}
	uses := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: uses}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != identity {
		return fmt.Errorf("asked for %s, got %v", identity, leaf.URIs)
	}
	fmt.Printf("certificate of %s until %s\n", leaf.URIs[0], leaf.NotAfter)
	return nil
}

// Whether PEM text has this certificate.
func contains(text, der []byte) bool {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if bytes.Equal(block.Bytes, der) {
			return true
		}
	}
	return false
}
