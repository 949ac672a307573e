function rfc9440(r) {
    const pem = r.variables.ssl_client_verify === 'SUCCESS' ? r.variables.ssl_client_raw_cert : '';
    return pem ? ':' + pem.replace(/-----[^-]+-----|\s/g, '') + ':' : '';
}

export default { rfc9440 };
