"""`make loadtest-crosscheck`: the load tests' figures beside those of `vllm bench serve` and GuideLLM.

One tiny real vLLM on one core, the three tools by turns on another, the same work from each. What is compared is
`ratios`' subject, what each tool wrote `results`', how each is run `tools`', the page `page`'s.
"""
