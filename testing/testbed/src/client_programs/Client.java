// java Client NAME CA: the peer's address, and the status of a request.
import java.io.*;
import java.net.*;
import java.security.*;
import java.security.cert.*;
import javax.net.ssl.*;

public class Client {
    public static void main(String[] arguments) throws Exception {
        String name = arguments[0];
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        CertificateFactory certificates = CertificateFactory.getInstance("X.509");
        try (InputStream in = new FileInputStream(arguments[1])) {
            store.setCertificateEntry("ca", certificates.generateCertificate(in));
        }
        String algorithm = TrustManagerFactory.getDefaultAlgorithm();
        TrustManagerFactory trust = TrustManagerFactory.getInstance(algorithm);
        trust.init(store);
        SSLContext tls = SSLContext.getInstance("TLS");
        tls.init(null, trust.getTrustManagers(), null);
        String peer;
        try (SSLSocket socket = (SSLSocket) tls.getSocketFactory().createSocket(name, 443)) {
            socket.startHandshake();
            peer = socket.getInetAddress().getHostAddress();
        }
        URL url = new URL("https://" + name + "/");
        HttpsURLConnection http = (HttpsURLConnection) url.openConnection();
        http.setSSLSocketFactory(tls.getSocketFactory());
        System.out.println("jvm " + peer + " " + http.getResponseCode());
    }
}
