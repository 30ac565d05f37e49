"""Images and corpora that lie elsewhere: URLs, safe fetching, mirrors of remote folders."""
