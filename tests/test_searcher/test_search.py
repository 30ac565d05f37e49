def test_smoke(searcher, wide, corpus):
    print(searcher.text_to_image("a red door", 3, where="width > 60").to_json())
    print(searcher.image_to_text(corpus.root/"0000.png", 3).to_json())
    print(wide.search_vectors("images", wide._version.vectors("images").gather([1,2]), 3, where="part<8"))
    print(wide.text_to_image(wide._version.vectors("images").gather([1])[0], 3).to_json())
